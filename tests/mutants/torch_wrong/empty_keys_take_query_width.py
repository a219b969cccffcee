"""Streaming attention over key blocks, with an early exit when the cache is empty."""

import torch


def kernel(q, k, v, *, causal=False, window=None, scale=None, block_k=128):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    if k_len == 0:
        return torch.zeros_like(q)
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width) * scale
    left, right = (None, None) if window is None else window
    if causal:
        right = 0 if right is None else min(right, 0)
    center = torch.arange(q_len)[:, None] + k_len - q_len
    row_max = torch.full((*rows.shape[:-1], 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(*rows.shape[:-1], value_width)
    for start in range(0, k_len, block_k):
        block = slice(start, min(start + block_k, k_len))
        scores = torch.matmul(rows, k[:, :, None, block].float().mT)
        distance = torch.arange(block.start, block.stop) - center
        if left is not None:
            scores = scores.masked_fill(distance < -left, -torch.inf)
        if right is not None:
            scores = scores.masked_fill(distance > right, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.nan_to_num(new_max, neginf=0.0)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + torch.matmul(weights, v[:, :, None, block].float())
        row_max = new_max
    out = accumulator / torch.where(row_sum == 0, 1.0, row_sum)
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype)
