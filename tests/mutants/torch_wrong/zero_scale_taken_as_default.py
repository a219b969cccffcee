"""Attention with an optional scale."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    scale = scale or q.shape[-1] ** -0.5
    group = q.shape[1] // k.shape[1]
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float() * scale, k.float().repeat_interleave(group, dim=1))
    visible = torch.ones(scores.shape[-2:], dtype=torch.bool)
    if causal:
        visible = visible.tril(k.shape[2] - q.shape[2])
    if mask is not None:
        visible = visible & mask
    weights = torch.softmax(scores.masked_fill(~visible, -torch.inf), dim=-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return torch.einsum("bhqk,bhke->bhqe", weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
