"""Attention that walks over the sequences of a batch, each with its own mask."""

import torch


def one_sequence(q, k, v, allowed, scale):
    """q (heads, q_len, width), allowed (heads or 1, q_len or 1, k_len or 1)."""
    group = q.shape[0] // k.shape[0]
    scores = q.float() @ k.float().repeat_interleave(group, 0).mT * scale
    scores = scores.masked_fill(~allowed, -torch.inf)
    weights = scores.softmax(-1).masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    return weights @ v.float().repeat_interleave(group, 0)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len = k.shape[2]
    scale = width**-0.5 if scale is None else scale
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k_len - q_len)
    if mask is not None:
        allowed = allowed & mask
    if allowed.dim() < 4:
        allowed = allowed.expand(batch, -1, -1, -1) if allowed.dim() == 3 else allowed.expand(batch, 1, -1, -1)
    for index, sequence_mask in enumerate(allowed[:batch]):
        out[index] = one_sequence(q[index], k[index], v[index], sequence_mask, scale).to(q.dtype)
    return out
