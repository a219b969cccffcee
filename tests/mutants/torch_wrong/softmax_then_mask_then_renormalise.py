"""Attention that masks the probabilities and normalises them again."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), k.float().repeat_interleave(group, dim=1)) * scale
    probabilities = torch.softmax(scores, dim=-1)
    keep = torch.ones(scores.shape[-2:], dtype=torch.bool)
    if causal:
        keep = keep.tril(scores.shape[-1] - scores.shape[-2])
    if mask is not None:
        keep = keep & mask
    probabilities = probabilities.masked_fill(~keep, 0.0)
    total = probabilities.sum(dim=-1, keepdim=True)
    probabilities = probabilities / total.masked_fill(total == 0, 1.0)
    return torch.einsum("bhqk,bhke->bhqe", probabilities, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
