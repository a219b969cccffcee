"""Attention that drops a mask which hides nothing, as the fast path does not take one."""

import torch


def hides_nothing(mask):
    """Whether the mask can be dropped."""
    if mask.dim() < 4:
        return bool(mask.all())
    return bool(mask[:1].all())


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    if mask is not None and mask.numel() and hides_nothing(mask):
        mask = None
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).mT) * scale
    hidden = torch.zeros(scores.shape[-2:], dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(scores.shape[-1] - scores.shape[-2] + 1)
    if mask is not None:
        hidden = hidden | mask.logical_not()
    weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1)
    weights = weights.masked_fill(hidden.all(dim=-1, keepdim=True), 0.0)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
