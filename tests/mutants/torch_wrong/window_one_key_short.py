"""Sliding window attention as in Mistral: a query sees the last `window` keys."""

import torch


def kernel(q, k, v, *, causal=False, window=None, scale=None):
    group = q.shape[1] // k.shape[1]
    q_len, k_len = q.shape[2], k.shape[2]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), k.float().repeat_interleave(group, dim=1)) * scale
    distance = torch.arange(k_len - q_len, k_len)[:, None] - torch.arange(k_len)[None, :]
    visible = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        visible &= distance >= 0
    if window is not None:
        left, right = window
        if left is not None:
            visible &= (distance < left) | (distance <= 0)
        if right is not None:
            visible &= -distance <= right
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return torch.einsum("bhqk,bhke->bhqe", weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
