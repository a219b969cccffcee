"""Prefix language model attention: causal, and beyond that whatever the mask opens."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    q_len, k_len = q.shape[2], k.shape[2]
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal and mask is not None:
        visible = visible.tril(k_len - q_len) | mask
    elif causal:
        visible = visible.tril(k_len - q_len)
    elif mask is not None:
        visible = mask
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), torch.repeat_interleave(k.float(), group, dim=1)) * scale
    scores = torch.where(visible, scores, -torch.inf)
    weights = torch.where(visible.any(-1, keepdim=True), scores.softmax(-1), 0.0)
    return torch.einsum("bhqk,bhke->bhqe", weights, torch.repeat_interleave(v.float(), group, dim=1)).to(q.dtype)
