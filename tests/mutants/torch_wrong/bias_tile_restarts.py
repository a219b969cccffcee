"""Tiled attention with a bias that may be shared by rows or columns."""

import torch


def bias_tile(bias, start, stop):
    """The columns of a tile, or the bias itself where one column serves all."""
    if bias.dim() == 0 or bias.shape[-1] == 1:
        return bias
    if bias.dim() == 1 or bias.shape[-2] == 1:
        return bias[..., : stop - start]  # one row for all queries stays in registers
    return bias[..., start:stop]


def kernel(q, k, v, *, bias=None, scale=None, block_k=96):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    row_max = torch.full((batch, heads, q_len, 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        scores = q.float() @ k[:, :, start:stop].float().repeat_interleave(group, 1).mT * scale
        if bias is not None:
            scores = scores + bias_tile(bias.float(), start, stop)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        weights, decay = torch.exp(scores - new_max), torch.exp(row_max - new_max)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ v[:, :, start:stop].float().repeat_interleave(group, 1)
        row_max = new_max
    return (accumulator / row_sum.masked_fill(row_sum == 0, 1.0)).to(q.dtype)
