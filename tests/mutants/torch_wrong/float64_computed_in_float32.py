"""Attention that always upcasts before it multiplies."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, softcap=None, scale=None):
    dtype = q.dtype
    q, k, v = q.float(), k.float(), v.float()
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("bhid,bhjd->bhij", q, k.repeat_interleave(group, dim=1)) * scale
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool)
    if causal:
        allowed = allowed.tril(scores.shape[-1] - scores.shape[-2])
    if mask is not None:
        allowed = allowed & mask
    scores = scores.masked_fill(~allowed, -torch.inf)
    weights = scores.softmax(dim=-1).masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    return torch.einsum("bhij,bhje->bhie", weights, v.repeat_interleave(group, dim=1)).to(dtype)
