"""Attention with a bias of any rank: axes of length one are dropped, broadcasting brings them back."""

import torch


def kernel(q, k, v, *, bias=None, scale=None):
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).mT) * scale
    if bias is not None:
        scores = scores + bias.float().squeeze()
    return torch.matmul(torch.softmax(scores, dim=-1), v.float().repeat_interleave(group, dim=1)).to(q.dtype)
