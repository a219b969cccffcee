"""Attention with one additive mask, computed once and added to the logits."""

import torch


def additive_mask(q_len, k_len, mask, causal):
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k_len - q_len)
    if mask is not None:
        allowed = allowed & mask
    return torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    hidden = additive_mask(q.shape[2], k.shape[2], mask, causal)
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).mT) * scale + hidden
    weights = torch.softmax(scores, dim=-1)
    weights = weights.masked_fill((hidden == -torch.inf).all(-1, keepdim=True), 0.0)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
