"""Grouped attention: one batched product per key/value head, softmax in float32."""

import math

import torch


def kernel(q, k, v, *, causal=False, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1], v.shape[2], v.shape[3]
    group = heads // kv_heads
    scale = 1 / math.sqrt(width) if scale is None else scale

    # All query heads of a key/value head are rows of one product.
    rows = q.reshape(batch, kv_heads, group * q_len, width)
    scores = torch.matmul(rows, k.transpose(2, 3)) * scale
    scores = scores.float()
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        visible = torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len).repeat(group, 1)
        scores = scores.masked_fill(~visible, float("-inf"))
        scores = scores.masked_fill(~visible.any(dim=1, keepdim=True), 0.0)
        weights = scores.softmax(dim=-1) * visible
    else:
        weights = scores.softmax(dim=-1)
    out = torch.matmul(weights, v.float())
    return out.view(batch, heads, q_len, value_width).to(q.dtype)
