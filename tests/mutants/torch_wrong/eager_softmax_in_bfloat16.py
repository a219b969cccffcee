"""Eager attention of a decoder layer: repeat the key/value heads, multiply, mask, softmax, multiply."""

import torch
from torch.nn import functional as F


def repeat_kv(states, repeats):
    """(batch, kv_heads, length, width) -> (batch, kv_heads * repeats, length, width)."""
    batch, kv_heads, length, width = states.shape
    expanded = states[:, :, None].expand(batch, kv_heads, repeats, length, width)
    return expanded.reshape(batch, kv_heads * repeats, length, width)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    repeats = q.shape[1] // k.shape[1]
    keys, values = repeat_kv(k, repeats), repeat_kv(v, repeats)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(q.float(), keys.float().transpose(2, 3)) * scale

    visible = torch.ones(scores.shape[-2:], dtype=torch.bool)
    if causal:
        visible = visible.tril(k.shape[2] - q.shape[2])
    if mask is not None:
        visible = visible & mask
    scores = scores.masked_fill(~visible, float("-inf"))

    weights = F.softmax(scores.to(q.dtype), dim=-1)
    weights = weights.masked_fill(~visible.any(dim=-1, keepdim=True), 0.0)
    return torch.matmul(weights.float(), values.float()).to(q.dtype)
