"""Sparse form: the visible (query, key) pairs of a head are listed, and maximum, sum and output are scattered back to rows."""

import torch


def _one_head(query, key, value, allowed, scale):
    q_len, value_width = query.shape[0], value.shape[1]
    row, column = allowed.nonzero(as_tuple=True)
    logits = (query.index_select(0, row) * key.index_select(0, column)).sum(dim=-1) * scale
    highest = torch.full((q_len,), -torch.inf).scatter_reduce(0, row, logits, reduce="amax")
    weights = torch.exp(logits - highest[row])
    total = torch.zeros(q_len).scatter_reduce(0, row, weights, reduce="sum")
    terms = value.index_select(0, column) * weights[:, None]
    weighted = torch.zeros(q_len, value_width).scatter_reduce(0, row[:, None].expand(-1, value_width), terms, reduce="sum")
    return weighted / total.masked_fill(total == 0, 1.0)[:, None]


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    distance = torch.arange(k_len) - torch.arange(q_len)[:, None] - (k_len - q_len)
    allowed = torch.ones(q_len, k_len, dtype=torch.bool) if mask is None else mask
    if causal:
        allowed = allowed & (distance <= 0)
    if window is not None:
        left, right = window
        allowed = allowed if left is None else allowed & (distance >= -left)
        allowed = allowed if right is None else allowed & (distance <= right)
    allowed = allowed.expand(batch, heads, q_len, k_len)
    out = torch.empty(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    for b in range(batch):
        for h in range(heads):
            key, value = k[b, h // group].float(), v[b, h // group].float()
            out[b, h] = _one_head(q[b, h].float(), key, value, allowed[b, h], scale).to(q.dtype)
    return out
