"""Attention with clipped logits, for stable training."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, scale=None):
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("bhid,bhjd->bhij", q.float(), k.float().repeat_interleave(group, dim=1))
    scores = torch.clamp(scores * scale, min=-50.0, max=50.0)
    if bias is not None:
        scores = scores + bias.float()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return torch.einsum("bhij,bhje->bhie", weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
