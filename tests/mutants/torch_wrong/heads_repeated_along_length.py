"""Grouped-query attention on (batch, length, heads, width) arrays."""

import torch


def kernel(q, k, v, *, scale=None):
    queries, keys, values = (x.transpose(1, 2).float() for x in (q, k, v))
    batch, k_len, kv_heads, width = keys.shape
    repeats = queries.shape[2] // kv_heads
    keys = keys.repeat_interleave(repeats, dim=1).reshape(batch, k_len, kv_heads * repeats, width)
    values = values.repeat_interleave(repeats, dim=2)
    scale = width**-0.5 if scale is None else scale
    scores = torch.einsum("bihd,bjhd->bhij", queries, keys) * scale
    return torch.einsum("bhij,bjhe->bhie", torch.softmax(scores, dim=-1), values).to(q.dtype)
