"""Attention through torch's fused function, with the additive mask of a model's mask builder."""

import torch
from torch.nn import functional as F


def build_mask(mask, bias, causal, q_len, k_len, dtype):
    """One additive mask in the type of the model, or None."""
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = torch.tril(allowed, diagonal=k_len - q_len)
    if mask is not None:
        allowed = allowed & mask
    elif not causal:
        return None if bias is None else bias.to(dtype)
    minimum = torch.finfo(dtype).min
    if bias is None:
        return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, minimum)
    return torch.where(allowed, bias, minimum).to(dtype)


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None):
    group = q.shape[1] // k.shape[1]
    additive = build_mask(mask, bias, causal, q.shape[2], k.shape[2], q.dtype)
    if additive is not None:
        additive = additive.expand(*q.shape[:3], k.shape[2])
    keys, values = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=additive, scale=scale)
