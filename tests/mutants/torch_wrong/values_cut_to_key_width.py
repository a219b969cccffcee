"""Tiled attention with an accumulator of one head width."""

import torch


def kernel(q, k, v, *, mask=None, scale=None, block_k=40):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else scale
    allowed = torch.ones((), dtype=torch.bool) if mask is None else mask
    allowed = allowed.expand(batch, heads, q_len, k_len)
    row_max = torch.full((batch, heads, q_len, 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    columns = min(width, value_width)
    accumulator = torch.zeros(batch, heads, q_len, value_width)
    for start in range(0, k_len, block_k):
        tile = slice(start, min(start + block_k, k_len))
        scores = q.float() @ k[:, :, tile].float().repeat_interleave(group, 1).mT * scale
        scores = scores.masked_fill(~allowed[..., tile], -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        values = v[:, :, tile, :columns].float().repeat_interleave(group, 1)
        accumulator[..., :columns] = accumulator[..., :columns] * decay + weights @ values
        row_max = new_max
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
