"""Attention over a padded batch: rows that no query may read are cleared first, so that garbage there cannot spread."""

import torch


def kernel(q, k, v, *, mask=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else scale
    if mask is not None:
        mask = mask.expand(batch, heads, q_len, k_len)
        used = mask.any(dim=2).reshape(batch, kv_heads, group, k_len).any(dim=2)
        if not used.all():
            v[~used.expand(batch, kv_heads, k_len)] = 0
    scores = q.float() @ k.float().repeat_interleave(group, dim=1).mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return (weights @ v.float().repeat_interleave(group, dim=1)).to(q.dtype)
