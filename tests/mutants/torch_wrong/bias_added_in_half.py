"""Attention with a relative position bias, as in encoder models."""

import torch
from torch import nn


def kernel(q, k, v, *, mask=None, bias=None, scale=None):
    heads_per_kv = q.size(1) // k.size(1)
    k = torch.repeat_interleave(k, heads_per_kv, dim=1)
    v = torch.repeat_interleave(v, heads_per_kv, dim=1)
    scale = q.size(-1) ** -0.5 if scale is None else scale
    scores = torch.matmul(q.float(), k.float().transpose(-2, -1)).mul(scale)
    if bias is not None:
        position_bias = bias.to(q.dtype)
        scores = (scores.to(position_bias.dtype) + position_bias).float()
    if mask is None:
        weights = nn.functional.softmax(scores, dim=-1)
    else:
        scores = scores.masked_fill(mask.logical_not(), -torch.inf)
        weights = nn.functional.softmax(scores, dim=-1)
        weights = weights.masked_fill(mask.any(-1, keepdim=True).logical_not(), 0)
    return torch.matmul(weights, v.float()).type_as(q)
