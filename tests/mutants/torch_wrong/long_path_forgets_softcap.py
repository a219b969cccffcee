"""Attention with two paths: everything at once for short inputs, tiles for long ones."""

import torch

LONG = 512


def short_path(q, k, v, hidden, softcap, scale):
    scores = q @ k.mT * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return weights.masked_fill(hidden.all(-1, keepdim=True), 0.0) @ v


def long_path(q, k, v, hidden, scale):
    row_max = torch.full((*q.shape[:3], 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(*q.shape[:3], v.shape[3])
    for start in range(0, k.shape[2], LONG):
        tile = slice(start, start + LONG)
        scores = (q @ k[:, :, tile].mT * scale).masked_fill(hidden[:, tile], -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ v[:, :, tile]
        row_max = new_max
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0)


def kernel(q, k, v, *, causal=False, softcap=None, scale=None):
    group = q.shape[1] // k.shape[1]
    q_len, k_len = q.shape[2], k.shape[2]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(k_len - q_len + 1)
    queries, keys, values = q.float(), k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    if k_len <= LONG:
        return short_path(queries, keys, values, hidden, softcap, scale).to(q.dtype)
    return long_path(queries, keys, values, hidden, scale).to(q.dtype)
