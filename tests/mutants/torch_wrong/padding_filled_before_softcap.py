"""Tiled attention for CPUs: tiles of 64 keys, the last one filled up."""

import torch
from torch.nn import functional as F

TILE = 64


def kernel(q, k, v, *, causal=False, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    limit = torch.arange(k_len - q_len, k_len)[:, None] if causal else torch.full((q_len, 1), k_len - 1)
    row_max = torch.full((batch, heads, q_len, 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, k_len, TILE):
        count = min(TILE, k_len - start)
        keys, values = (
            F.pad(x[:, :, start : start + count].float(), (0, 0, 0, TILE - count)).repeat_interleave(group, dim=1) for x in (k, v)
        )
        scores = q.float() @ keys.mT * scale
        scores[..., count:] = -torch.inf
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if causal:
            scores = scores.masked_fill(torch.arange(start, start + TILE) > limit, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ values
        row_max = new_max
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
