"""Grouped-query attention: the key/value heads are repeated to match the query heads."""

import torch


def kernel(q, k, v, *, causal=False, scale=None):
    repeats = q.shape[1] // k.shape[1]
    keys, values = k.float().repeat(1, repeats, 1, 1), v.float().repeat(1, repeats, 1, 1)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(q.float(), keys.transpose(2, 3)) * scale
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(k.shape[2] - q.shape[2] + 1)
        scores = scores.masked_fill(hidden, -torch.inf)
        return torch.matmul(scores.softmax(-1).masked_fill(hidden.all(-1, keepdim=True), 0.0), values).to(q.dtype)
    return torch.matmul(scores.softmax(-1), values).to(q.dtype)
