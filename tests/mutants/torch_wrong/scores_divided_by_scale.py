"""Attention as in the paper: the product over the root of the width."""

import torch


def kernel(q, k, v, *, mask=None, scale=None):
    group = q.shape[1] // k.shape[1]
    denominator = q.shape[-1] ** 0.5 if scale is None else scale
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).transpose(-2, -1)) / denominator
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
