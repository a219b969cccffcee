"""Eager attention with a boolean mask."""

import torch
from torch.nn import functional as F


def kernel(q, k, v, *, mask=None, bias=None, causal=False, softcap=None, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).transpose(-2, -1)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if bias is not None:
        scores = scores + bias.float()
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(k.shape[2] - q.shape[2] + 1)
        scores = scores.masked_fill(future, float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = F.softmax(scores, dim=-1)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
