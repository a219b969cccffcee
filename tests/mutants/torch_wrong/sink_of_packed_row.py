"""Grouped attention with sinks: the query heads of one key/value head are packed as rows, token by token."""

import torch


def kernel(q, k, v, *, causal=False, window=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else scale
    packed = q.float().reshape(batch, kv_heads, group, q_len, width)
    packed = packed.transpose(2, 3).reshape(batch, kv_heads, q_len * group, width)
    row = torch.arange(q_len * group)
    ahead = torch.arange(k_len) - (row // group + k_len - q_len)[:, None]
    visible = torch.ones_like(ahead, dtype=torch.bool)
    if causal:
        visible &= ahead <= 0
    left, right = (None, None) if window is None else window
    if left is not None:
        visible &= ahead >= -left
    if right is not None:
        visible &= ahead <= right
    scores = (packed @ k.float().mT * scale).masked_fill(~visible, -torch.inf)
    if sinks is not None:
        per_row = sinks.float().reshape(kv_heads, group)[:, row // q_len]
        scores = torch.cat([scores, per_row[None, :, :, None].expand(batch, -1, -1, -1)], dim=-1)
    weights = scores.softmax(-1)[..., :k_len].masked_fill(~visible.any(-1, keepdim=True), 0.0)
    out = (weights @ v.float()).reshape(batch, kv_heads, q_len, group, value_width).transpose(2, 3)
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype)
