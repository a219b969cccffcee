"""Attention in whole query tiles."""

import torch


def kernel(q, k, v, *, mask=None, scale=None, block_q=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    block_q = max(min(block_q, q_len), 1)
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    allowed = torch.ones((), dtype=torch.bool) if mask is None else mask
    allowed = allowed.expand(batch, heads, q_len, k_len)
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    for start in range(0, q_len - block_q + 1, block_q):
        rows = slice(start, start + block_q)
        scores = (q[:, :, rows].float() @ keys.mT * scale).masked_fill(~allowed[:, :, rows], -torch.inf)
        weights = torch.softmax(scores, dim=-1).masked_fill(~allowed[:, :, rows].any(-1, keepdim=True), 0.0)
        out[:, :, rows] = (weights @ values).to(q.dtype)
    return out
