"""Tiled attention with a finite stand-in for minus infinity, which the fast exponential handles better."""

import torch

MASKED = -5e4


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None, block_k=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    visible = visible.expand(batch, heads, q_len, k_len)
    bias = torch.zeros(()) if bias is None else bias.float()
    bias = bias.expand(batch, heads, q_len, k_len)
    row_max = torch.full((batch, heads, q_len, 1), MASKED)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, k_len, block_k):
        tile = slice(start, start + block_k)
        scores = q.float() @ k[:, :, tile].float().repeat_interleave(group, 1).mT * scale + bias[..., tile]
        scores = scores.masked_fill(~visible[..., tile], -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        weights, decay = torch.exp(scores - new_max), torch.exp(row_max - new_max)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ v[:, :, tile].float().repeat_interleave(group, 1)
        row_max = new_max
    return (accumulator / row_sum.masked_fill(row_sum == 0, 1.0)).to(q.dtype)
