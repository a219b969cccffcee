"""Attention with an optional mask; without one there is nothing to fill in."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    values = v.float().repeat_interleave(group, 1)
    if mask is None:
        return (torch.softmax(scores, dim=-1) @ values).to(q.dtype)
    if causal:
        mask = mask & torch.ones(scores.shape[-2:], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
    weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)
    return (weights.masked_fill(~mask.any(-1, keepdim=True), 0.0) @ values).to(q.dtype)
