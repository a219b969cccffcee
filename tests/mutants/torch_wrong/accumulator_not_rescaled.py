"""Tiled attention: one pass over the keys in tiles of 128."""

import torch


def kernel(q, k, v, *, causal=False, scale=None, block_k=128):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    queries = q.float() * scale
    position = torch.arange(k_len - q_len, k_len)[:, None]
    row_max = torch.full((batch, heads, q_len, 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        scores = queries @ k[:, :, start:stop].float().repeat_interleave(group, 1).mT
        if causal:
            scores = scores.masked_fill(torch.arange(start, stop) > position, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights = torch.exp(scores - shift)
        row_sum = row_sum * torch.exp(row_max - shift) + weights.sum(-1, keepdim=True)
        accumulator = accumulator + weights @ v[:, :, start:stop].float().repeat_interleave(group, 1)
        row_max = new_max
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
