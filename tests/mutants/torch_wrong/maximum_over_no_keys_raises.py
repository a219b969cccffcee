"""Attention with the softmax written out."""

import torch


def kernel(q, k, v, *, causal=False, softcap=None, scale=None):
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(k.shape[2] - q.shape[2] + 1), -torch.inf)
    top = scores.max(dim=-1, keepdim=True).values
    weights = torch.exp(scores - top.masked_fill(top == -torch.inf, 0.0))
    total = weights.sum(dim=-1, keepdim=True)
    return (weights @ v.float().repeat_interleave(group, 1) / total.masked_fill(total == 0, 1.0)).to(q.dtype)
