"""Attention with two paths: one for a single new token, which sees the whole cache, and one for prompts."""

import torch


def decode(q, k, v, scale):
    """One query: (batch, heads, 1, width)."""
    batch, heads, _, width = q.shape
    kv_heads = k.shape[1]
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, width)
    weights = torch.softmax(torch.einsum("bgrd,bgkd->bgrk", rows, k.float()) * scale, dim=-1)
    return torch.einsum("bgrk,bgke->bgre", weights, v.float()).reshape(batch, heads, 1, v.shape[3])


def prefill(q, k, v, mask, causal, scale):
    group = q.shape[1] // k.shape[1]
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k.shape[2] - q.shape[2])
    if mask is not None:
        allowed = allowed & mask
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1).masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    return weights @ v.float().repeat_interleave(group, 1)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = decode(q, k, v, scale) if q.shape[2] == 1 else prefill(q, k, v, mask, causal, scale)
    return out.to(q.dtype)
