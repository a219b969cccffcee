"""Attention over a cache that is allocated in blocks of 64 keys."""

import torch

BLOCK = 64


def as_blocks(x):
    """Copy into whole blocks: (batch, heads, blocks * BLOCK, width)."""
    batch, heads, length, width = x.shape
    cache = torch.zeros(batch, heads, -(-length // BLOCK) * BLOCK, width)
    cache[:, :, :length] = x
    return cache


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, v.shape[3])
    keys, values = as_blocks(k).repeat_interleave(group, 1), as_blocks(v).repeat_interleave(group, 1)
    column = torch.arange(keys.shape[2])
    scores = q.float() @ keys.mT * scale
    visible = torch.ones(q_len, keys.shape[2], dtype=torch.bool)
    if causal:
        visible = visible & (column <= torch.arange(k_len - q_len, k_len)[:, None])
    if mask is not None:
        inside = torch.zeros(batch, heads, q_len, keys.shape[2], dtype=torch.bool)
        inside[..., :k_len] = mask
        visible = visible & inside
    weights = torch.softmax(scores.masked_fill(~visible, -torch.inf), dim=-1)
    weights = weights.masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return (weights @ values).to(q.dtype)
