"""Attention by exponentials and a division; the logits are bounded after normalisation of queries and keys."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    scores = torch.einsum("bgrqd,bgkd->bgrqk", rows, k.float()).reshape(batch, heads, q_len, k_len)
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    weights = torch.where(visible, torch.exp(scores * scale), 0.0)
    total = weights.sum(dim=-1, keepdim=True)
    weights = weights.reshape(batch, kv_heads, heads // kv_heads, q_len, k_len)
    out = torch.einsum("bgrqk,bgke->bgrqe", weights, v.float()).reshape(batch, heads, q_len, value_width)
    return (out / total.masked_fill(total == 0, 1.0)).to(q.dtype)
