"""Attention with the smallest finite number for hidden keys, which keeps the softmax free of NaN."""

import torch
from torch.nn import functional as F


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    heads, q_len, width = q.shape[1:]
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    position = torch.arange(k_len - q_len, k_len)[:, None]
    key = torch.arange(k_len)[None, :]
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible & (key <= position)
    if window is not None:
        left, right = window
        visible = visible if left is None else visible & (position - key <= left)
        visible = visible if right is None else visible & (key - position <= right)
    if mask is not None:
        visible = visible & mask
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), k.float().repeat_interleave(group, dim=1)) * scale
    scores = torch.where(visible, scores, torch.finfo(torch.float32).min)
    weights = F.softmax(scores, dim=-1)
    return torch.einsum("bhqk,bhke->bhqe", weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
