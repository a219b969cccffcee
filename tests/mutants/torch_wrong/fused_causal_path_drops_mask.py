"""Attention through torch's fused function; square causal attention takes the flag, everything else an explicit mask."""

import torch
from torch.nn import functional as F


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    q_len, k_len = q.shape[2], k.shape[2]
    group = q.shape[1] // k.shape[1]
    is_causal = causal and q_len == k_len
    if is_causal:
        mask = None
    elif causal:
        aligned = torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len)
        mask = aligned if mask is None else mask & aligned
    if mask is not None:
        mask = mask.expand(*q.shape[:3], k_len)
    keys, values = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, is_causal=is_causal, scale=scale)
