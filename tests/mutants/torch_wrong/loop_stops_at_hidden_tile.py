"""Tiled attention that stops as soon as nothing more is visible."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    visible = visible.expand(batch, heads, q_len, k_len)
    row_max = torch.full((batch, heads, q_len, 1), -torch.inf)
    row_sum = torch.zeros(batch, heads, q_len, 1)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, k_len, block_k):
        tile = slice(start, start + block_k)
        if not visible[..., tile].any():
            break
        scores = q.float() @ k[:, :, tile].float().repeat_interleave(group, 1).mT * scale
        scores = scores.masked_fill(~visible[..., tile], -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = new_max.masked_fill(new_max == -torch.inf, 0.0)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ v[:, :, tile].float().repeat_interleave(group, 1)
        row_max = new_max
    return (accumulator / row_sum.masked_fill(row_sum == 0, 1.0)).to(q.dtype)
