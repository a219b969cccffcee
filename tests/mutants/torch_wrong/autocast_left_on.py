"""Attention under autocast, cast back to the caller's type."""

import torch
from torch.nn import functional as F


def kernel(q, k, v, *, mask=None, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = torch.matmul(q * scale, k.repeat_interleave(group, dim=1).transpose(-1, -2))
        scores = scores.float()
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = F.softmax(scores, dim=-1)
        if mask is not None:
            weights = weights.masked_fill(~mask.any(dim=-1, keepdim=True), 0.0)
        out = torch.matmul(weights, v.repeat_interleave(group, dim=1))
    return out.to(q.dtype)
