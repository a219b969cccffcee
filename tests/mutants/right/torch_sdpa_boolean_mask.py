"""scaled_dot_product_attention in float32 with one boolean mask; rows without keys are opened for it and zeroed after it.

The library's fused CPU backend flushes a weight below the smallest normal float32 (1.2e-38) to zero, as GPU kernels do.
"""

import torch
import torch.nn.functional as F


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    if 0 in (batch, q_len, k_len):
        return torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype, device=q.device)
    scale = width**-0.5 if scale is None else float(scale)
    distance = torch.arange(k_len, device=q.device) - (torch.arange(q_len, device=q.device)[:, None] + k_len - q_len)
    allowed = torch.ones(q_len, k_len, dtype=torch.bool, device=q.device)
    if causal:
        allowed &= distance <= 0
    if window is not None and window[0] is not None:
        allowed &= distance >= -window[0]
    if window is not None and window[1] is not None:
        allowed &= distance <= window[1]
    if mask is not None:
        allowed = allowed & mask
    allowed = allowed.broadcast_to(batch, heads, q_len, k_len)
    has_key = allowed.any(dim=-1, keepdim=True)

    # a key that no query of its group sees may hold anything, and the library only adds -inf to its logit
    seen = allowed.any(dim=2).view(batch, kv_heads, heads // kv_heads, k_len).any(dim=2)[..., None]
    keys = torch.where(seen, k.float(), 0.0)
    values = torch.where(seen, v.float(), 0.0)
    out = F.scaled_dot_product_attention(q.float() * scale, keys, values, attn_mask=allowed | ~has_key, scale=1.0, enable_gqa=True)
    return torch.where(has_key, out, 0.0).to(q.dtype)
