"""Attention that stores its weights in half precision to halve the traffic of the second product."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_q=64):
    batch, heads, q_len, width = q.shape
    k_len = k.shape[2]
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = (x.float().repeat_interleave(group, dim=1) for x in (k, v))
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    full_mask = None if mask is None else mask.expand(batch, heads, q_len, k_len)
    for start in range(0, q_len, block_q):
        rows = slice(start, min(start + block_q, q_len))
        scores = (q[:, :, rows].float() @ keys.mT) * scale
        if causal:
            position = torch.arange(rows.start, rows.stop)[:, None] + k_len - q_len
            scores = scores.masked_fill(torch.arange(k_len) > position, -torch.inf)
        if full_mask is not None:
            scores = scores.masked_fill(~full_mask[:, :, rows], -torch.inf)
        empty = (scores == -torch.inf).all(dim=-1, keepdim=True)
        weights = torch.softmax(scores, dim=-1).masked_fill(empty, 0.0).to(torch.float16)
        out[:, :, rows] = (weights.float() @ values).to(q.dtype)
    return out
