"""Attention over padded sequences: the mask is turned into lengths once, and the inner loop compares positions."""

import torch


def kernel(q, k, v, *, mask=None, scale=None):
    k_len, group = k.shape[2], q.shape[1] // k.shape[1]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    lengths = torch.full((1, 1, 1, 1), k_len)
    if mask is not None:
        lengths = torch.atleast_1d(mask)
        lengths = lengths.expand(*lengths.shape[:-1], k_len).sum(dim=-1, keepdim=True)
    outside = torch.arange(k_len) >= lengths
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).mT) * scale
    scores = scores.masked_fill(outside, -torch.inf)
    weights = torch.softmax(scores, dim=-1).masked_fill(lengths == 0, 0.0)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
