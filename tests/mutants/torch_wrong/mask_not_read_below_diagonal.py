"""Tiled attention with tree masks: a tile that lies under the causal diagonal needs no test of its elements."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_k=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    offset = k_len - q_len
    scale = width**-0.5 if scale is None else scale
    mask = None if mask is None else mask.expand(batch, heads, q_len, k_len)
    position = torch.arange(q_len)[:, None] + offset
    row_max = torch.full((batch, heads, q_len, 1), -torch.inf)
    row_sum = torch.zeros(batch, heads, q_len, 1)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        scores = q.float() @ k[:, :, start:stop].float().repeat_interleave(group, 1).mT * scale
        below_diagonal = causal and stop - 1 <= offset
        if causal and not below_diagonal:
            scores = scores.masked_fill(torch.arange(start, stop) > position, -torch.inf)
        if mask is not None and not below_diagonal:
            scores = scores.masked_fill(~mask[..., start:stop], -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ v[:, :, start:stop].float().repeat_interleave(group, 1)
        row_max = new_max
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
