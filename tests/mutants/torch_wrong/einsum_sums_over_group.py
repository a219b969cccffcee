"""Grouped-query attention with einsum: no copy of the keys and values."""

import torch


def kernel(q, k, v, *, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, value_width = v.shape[1], v.shape[3]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, group, q_len, width)
    scores = torch.einsum("bgrqd,bgkd->bgqk", rows, k.float()) * scale
    out = torch.einsum("bgqk,bgke->bgqe", torch.softmax(scores, dim=-1), v.float())
    return out[:, :, None].expand(batch, kv_heads, group, q_len, value_width).reshape(batch, heads, q_len, value_width).to(q.dtype)
