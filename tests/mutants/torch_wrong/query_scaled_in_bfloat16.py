"""Attention that folds the scale into the queries, so that the inner loop has one multiplication less."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    scale = width**-0.5 if scale is None else scale
    q = q * scale

    scores = torch.einsum("bgrqd,bgkd->bgrqk", q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width), k.float())
    scores = scores.reshape(batch, heads, q_len, k_len)
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = hidden | torch.ones_like(hidden).triu(k_len - q_len + 1)
    if mask is not None:
        hidden = hidden | ~mask
    scores = scores.masked_fill(hidden, float("-inf"))
    weights = scores.softmax(-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
    weights = weights.reshape(batch, kv_heads, heads // kv_heads, q_len, k_len)
    out = torch.einsum("bgrqk,bgke->bgrqe", weights, v.float())
    return out.reshape(batch, heads, q_len, v.shape[3]).to(q.dtype)
