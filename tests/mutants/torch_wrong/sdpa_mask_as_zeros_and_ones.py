"""Attention through torch's fused function; the mask joins the position bias, which is a float."""

from torch.nn import functional as F


def kernel(q, k, v, *, mask=None, bias=None, scale=None):
    attn_mask = None
    if mask is not None:
        attn_mask = mask.to(q.dtype)
    if bias is not None:
        attn_mask = bias.to(q.dtype) if attn_mask is None else attn_mask + bias.to(q.dtype)
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*q.shape[:3], k.shape[2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=scale, enable_gqa=True)
