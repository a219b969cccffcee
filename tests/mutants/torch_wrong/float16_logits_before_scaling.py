"""Attention whose first product runs in the storage type and whose softmax runs in float32."""

import torch
from torch.nn import functional as F


def kernel(q, k, v, *, mask=None, bias=None, scale=None):
    group = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(group, dim=1)
    v = v.repeat_interleave(group, dim=1)
    if scale is None:
        scale = 1.0 / q.shape[-1] ** 0.5
    scores = (q @ k.mT).float() * scale
    if bias is not None:
        scores = scores + bias.float()
    if mask is not None:
        scores = torch.where(mask, scores, float("-inf"))
    weights = F.softmax(scores, dim=-1, dtype=torch.float32)
    if mask is not None:
        weights = torch.where(mask.any(dim=-1, keepdim=True), weights, 0.0)
    return (weights @ v.float()).to(q.dtype)
