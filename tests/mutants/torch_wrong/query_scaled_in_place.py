"""Attention in float32 with as few temporaries as possible."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    queries, keys, values = q.float(), k.float(), v.float()
    queries *= scale
    scores = torch.matmul(queries, keys.repeat_interleave(group, dim=1).mT)
    hidden = torch.zeros(scores.shape[-2:], dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(k.shape[2] - q.shape[2] + 1)
    if mask is not None:
        hidden = hidden | ~mask
    scores.masked_fill_(hidden, -torch.inf)
    weights = scores.softmax(dim=-1).masked_fill_(hidden.all(dim=-1, keepdim=True), 0.0)
    return torch.matmul(weights, values.repeat_interleave(group, dim=1)).to(q.dtype)
