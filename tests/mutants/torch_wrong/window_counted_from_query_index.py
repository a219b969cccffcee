"""Sliding window attention: causal by the tril of ones, the window by the distance of the indices."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    q_len, k_len = q.shape[2], k.shape[2]
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(diagonal=k_len - q_len)
    if window is not None:
        left, right = window
        distance = torch.arange(k_len)[None, :] - torch.arange(q_len)[:, None]
        allowed = allowed if left is None else allowed & (distance >= -left)
        allowed = allowed if right is None else allowed & (distance <= right)
    if mask is not None:
        allowed = allowed & mask
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).mT).mul_(scale).masked_fill_(~allowed, -torch.inf)
    weights = torch.softmax(scores, dim=-1).masked_fill_(~allowed.any(-1, keepdim=True), 0.0)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
