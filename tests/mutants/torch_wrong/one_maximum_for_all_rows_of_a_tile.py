"""Attention with the stabiliser of a whole query tile: one reduction instead of one a row."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_q=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    if k_len == 0:
        return out
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k_len - q_len)
    if mask is not None:
        allowed = allowed & mask
    allowed = allowed.expand(batch, heads, q_len, k_len)
    for start in range(0, q_len, block_q):
        rows = slice(start, start + block_q)
        scores = (q[:, :, rows].float() @ keys.mT * scale).masked_fill(~allowed[:, :, rows], -torch.inf)
        top = scores.amax(dim=(-2, -1), keepdim=True)
        weights = torch.exp(scores - top.masked_fill(top == -torch.inf, 0.0))
        total = weights.sum(dim=-1, keepdim=True)
        out[:, :, rows] = (weights @ values / total.masked_fill(total == 0, 1.0)).to(q.dtype)
    return out
