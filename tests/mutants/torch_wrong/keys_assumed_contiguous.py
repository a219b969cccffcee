"""Attention over raw buffers: keys and values are addressed by hand, as the compiled kernel does."""

import torch


def rows_of(buffer, kv_heads, length, width):
    """A (batch, kv_heads, length, width) view of the buffer, from its first element on."""
    return buffer.as_strided((buffer.shape[0], kv_heads, length, width), (kv_heads * length * width, length * width, width, 1))


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    scale = width**-0.5 if scale is None else scale
    keys = rows_of(k, kv_heads, k_len, width).float()
    values = rows_of(v.contiguous(), kv_heads, k_len, value_width).float()
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    scores = torch.einsum("bgrqd,bgkd->bgrqk", rows, keys) * scale
    if causal:
        visible = torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len)
        scores = scores.masked_fill(~visible, -torch.inf)
        weights = scores.softmax(-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    else:
        weights = scores.softmax(-1)
    return torch.einsum("bgrqk,bgke->bgrqe", weights, values).reshape(batch, heads, q_len, value_width).to(q.dtype)
