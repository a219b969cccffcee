"""Attention with a polynomial exponential, whose argument is kept inside the interval of the fit."""

import torch

LOWEST = -60.0


def bounded_exp(x):
    return torch.exp(x.clamp(min=LOWEST))


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, v.shape[3])
    scale = width**-0.5 if scale is None else scale
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    scores = scores.masked_fill(~visible, -torch.inf)
    top = scores.amax(-1, keepdim=True)
    weights = bounded_exp(scores - top.masked_fill(top == -torch.inf, 0.0))
    weights = weights / weights.sum(-1, keepdim=True)
    weights = weights.masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return (weights @ v.float().repeat_interleave(group, 1)).to(q.dtype)
