"""Attention with the scale of the head width."""

import math

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None):
    head_width = v.shape[-1]
    scale = 1.0 / math.sqrt(head_width) if scale is None else scale
    group = q.shape[1] // k.shape[1]
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), k.float().repeat_interleave(group, dim=1)) * scale
    if bias is not None:
        scores = scores + bias.float()
    visible = torch.ones(scores.shape[-2:], dtype=torch.bool)
    if causal:
        visible = visible.tril(k.shape[2] - q.shape[2])
    if mask is not None:
        visible = visible & mask
    weights = torch.softmax(torch.where(visible, scores, -torch.inf), dim=-1)
    weights = torch.where(visible.any(dim=-1, keepdim=True), weights, 0.0)
    return torch.einsum("bhqk,bhke->bhqe", weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
