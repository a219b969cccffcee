"""Tiled attention that rescales only when the maximum has grown by more than a threshold."""

import torch

THRESHOLD = 8.0


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_k=32):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else scale
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    visible = visible.expand(batch, heads, q_len, k_len)
    reference = torch.full((batch, heads, q_len, 1), -torch.inf)
    row_sum = torch.zeros_like(reference)
    accumulator = torch.zeros(batch, heads, q_len, value_width)
    for start in range(0, k_len, block_k):
        tile = slice(start, start + block_k)
        scores = q.float() @ k[:, :, tile].float().repeat_interleave(group, 1).mT * scale
        scores = scores.masked_fill(~visible[..., tile], -torch.inf)
        tile_max = scores.amax(-1, keepdim=True)
        grown = tile_max > reference + THRESHOLD
        decay = torch.where(grown, torch.exp(reference - tile_max), 1.0)
        reference = torch.where(grown, tile_max, reference)
        weights = torch.exp(scores - reference.masked_fill(reference == -torch.inf, 0.0))
        row_sum = row_sum + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ v[:, :, tile].float().repeat_interleave(group, 1)
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
