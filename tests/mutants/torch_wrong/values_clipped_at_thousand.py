"""Attention that keeps outliers out of the second product."""

import torch

LIMIT = 1000.0


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    scores = rows @ k.float().unsqueeze(2).mT * scale
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(k_len - q_len + 1)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
    values = v.float().clamp(-LIMIT, LIMIT).unsqueeze(2)
    return (weights @ values).reshape(batch, heads, q_len, value_width).to(q.dtype)
