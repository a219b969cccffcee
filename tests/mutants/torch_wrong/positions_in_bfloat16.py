"""Sliding window attention; the positions are tensors like any other, made on the device and in the type of the queries."""

import torch


def kernel(q, k, v, *, causal=False, window=None, scale=None):
    group = q.shape[1] // k.shape[1]
    q_len, k_len = q.shape[2], k.shape[2]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), k.float().repeat_interleave(group, dim=1)) * scale

    key_position = torch.arange(k_len, device=q.device).to(q.dtype)
    query_position = torch.arange(k_len - q_len, k_len, device=q.device).to(q.dtype)
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = hidden | (key_position[None, :] > query_position[:, None])
    if window is not None:
        left, right = window
        if left is not None:
            hidden = hidden | (key_position[None, :] < query_position[:, None] - left)
        if right is not None:
            hidden = hidden | (key_position[None, :] > query_position[:, None] + right)
    scores = scores.masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores, dim=-1).masked_fill(hidden.all(dim=-1, keepdim=True), 0.0)
    return torch.einsum("bhqk,bhke->bhqe", weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
