"""Attention whose row maximum comes out of the epilogue of the first product; the mask is applied on the way to the exponential."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, value_width)
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads * q_len, width)
    scores = torch.matmul(rows, k.float().mT).reshape(batch, heads, q_len, k_len) * scale
    row_max = scores.amax(dim=-1, keepdim=True)
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    scores = torch.where(visible, scores, -torch.inf)
    weights = torch.exp(scores - row_max)
    row_sum = weights.sum(dim=-1, keepdim=True)
    weights = weights.reshape(batch, kv_heads, heads // kv_heads * q_len, k_len)
    out = torch.matmul(weights, v.float()).reshape(batch, heads, q_len, value_width)
    return (out / row_sum.masked_fill(row_sum == 0, 1.0)).to(q.dtype)
