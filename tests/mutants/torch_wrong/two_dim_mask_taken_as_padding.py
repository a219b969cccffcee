"""Attention that accepts a padding mask (batch, k_len) as well as full masks."""

import torch


def full_mask(mask, batch, k_len):
    """Bring a mask to four axes."""
    if mask.dim() == 2 and mask.shape == (batch, k_len):
        return mask[:, None, None, :]
    return mask.reshape((1,) * (4 - mask.dim()) + tuple(mask.shape))


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads * q_len, width)
    scores = (rows @ k.float().mT).reshape(batch, heads, q_len, k_len) * scale
    allowed = torch.ones(1, 1, q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k_len - q_len)
    if mask is not None:
        allowed = allowed & full_mask(mask, batch, k_len)
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1).masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    out = weights.reshape(batch, kv_heads, heads // kv_heads * q_len, k_len) @ v.float()
    return out.reshape(batch, heads, q_len, v.shape[3]).to(q.dtype)
