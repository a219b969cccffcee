"""Attention with masks of two, three or four axes."""

import torch


def kernel(q, k, v, *, mask=None, scale=None):
    batch, heads = q.shape[:2]
    group = heads // k.shape[1]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    keys = k.float().repeat_interleave(group, dim=1)
    values = v.float().repeat_interleave(group, dim=1)
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), keys) * scale
    if mask is not None:
        if mask.dim() == 3 and mask.shape[0] == batch:
            mask = mask.unsqueeze(1)
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return torch.einsum("bhqk,bhke->bhqe", weights, values).to(q.dtype)
