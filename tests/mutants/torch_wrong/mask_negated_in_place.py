"""Attention for callers whose mask says what may be attended; the inner loop wants the opposite."""

import torch


def kernel(q, k, v, *, mask=None, scale=None):
    group = q.shape[1] // k.shape[1]
    keys, values = k.repeat_interleave(group, dim=1).float(), v.repeat_interleave(group, dim=1).float()
    scale = q.shape[3] ** -0.5 if scale is None else scale
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), keys) * scale
    if mask is not None:
        blocked = mask.logical_not_()
        scores = scores.masked_fill(blocked, -torch.inf)
        weights = scores.softmax(-1).masked_fill(blocked.all(-1, keepdim=True), 0.0)
    else:
        weights = scores.softmax(-1)
    return torch.einsum("bhqk,bhke->bhqe", weights, values).to(q.dtype)
