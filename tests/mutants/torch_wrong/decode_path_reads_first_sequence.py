"""Attention with a vector path for decoding: one query against the cache, all heads of a group at once."""

import torch


def vector_path(q, k, v, scale):
    """q (batch, heads, 1, width); returns (batch, heads, 1, value_width)."""
    batch, heads, _, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    cache_k = k.float().reshape(batch * kv_heads, k_len, width)
    cache_v = v.float().reshape(batch * kv_heads, k_len, value_width)
    group = heads // kv_heads
    row = torch.arange(batch * heads) // group % kv_heads
    weights = torch.softmax(torch.einsum("rd,rkd->rk", q.float().reshape(batch * heads, width), cache_k[row]) * scale, dim=-1)
    return torch.einsum("rk,rke->re", weights, cache_v[row]).reshape(batch, heads, 1, value_width)


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    if q_len == 1:
        return vector_path(q, k, v, scale).to(q.dtype)
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return (weights @ v.float().repeat_interleave(group, 1)).reshape(batch, heads, q_len, v.shape[3]).to(q.dtype)
