"""Attention through torch's fused function, with the scale applied by the caller."""

import torch
from torch.nn import functional as F


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    q_len, k_len = q.shape[2], k.shape[2]
    if scale is not None:
        q = q * scale
    allowed = None
    if causal:
        allowed = torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len)
    if mask is not None:
        allowed = mask if allowed is None else allowed & mask
    if allowed is not None:
        allowed = allowed.expand(*q.shape[:3], k_len)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=True)
