"""Attention with a bias that joins the product before the scale, in one fused multiply-add."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    raw = torch.einsum("bhqd,bhkd->bhqk", q.float(), k.float().repeat_interleave(group, dim=1))
    if bias is not None:
        raw = raw + bias.float()
    scores = raw * scale
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(k_len - q_len + 1)
    if mask is not None:
        hidden = hidden | ~mask
    weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
    out = torch.einsum("bhqk,bhke->bhqe", weights, v.float().repeat_interleave(group, dim=1))
    return out.reshape(batch, heads, q_len, v.shape[3]).to(q.dtype)
