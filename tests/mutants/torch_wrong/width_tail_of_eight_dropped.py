"""Attention with the product over the width unrolled in vectors of eight."""

import torch

VECTOR = 8


def dot(rows, columns):
    """rows (..., m, width) times columns (..., n, width), eight lanes at a time."""
    width = rows.shape[-1]
    if width < VECTOR:
        return rows @ columns.mT
    total = torch.zeros(*rows.shape[:-1], columns.shape[-2])
    for lane in range(0, width - VECTOR + 1, VECTOR):
        total = total + rows[..., lane : lane + VECTOR] @ columns[..., lane : lane + VECTOR].mT
    return total


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = dot(q.float(), k.float().repeat_interleave(group, 1)) * scale
    hidden = torch.zeros(scores.shape[-2:], dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(k.shape[2] - q.shape[2] + 1)
    if mask is not None:
        hidden = hidden | ~mask
    weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
    return (weights @ v.float().repeat_interleave(group, 1)).to(q.dtype)
