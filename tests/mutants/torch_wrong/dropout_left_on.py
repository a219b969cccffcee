"""Eager attention with dropout on the weights."""

import torch
from torch.nn import functional as F

ATTENTION_DROPOUT = 0.1


def kernel(q, k, v, *, mask=None, scale=None):
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).transpose(2, 3)) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = F.softmax(scores, dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    weights = F.dropout(weights, p=ATTENTION_DROPOUT)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
