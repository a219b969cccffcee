"""Self-attention in square tiles."""

import torch


def kernel(q, k, v, *, causal=False, scale=None, block_k=64):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    tiles = -(-q_len // block_k)
    row_max = torch.full((*rows.shape[:4], 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(*rows.shape[:4], value_width)
    for tile in range(tiles):
        start, stop = min(tile * block_k, k_len), min((tile + 1) * block_k, k_len)
        if start == stop:
            continue
        scores = torch.einsum("bgrqd,bgkd->bgrqk", rows, k[:, :, start:stop].float()) * scale
        if causal:
            position = torch.arange(q_len)[:, None] + k_len - q_len
            scores = scores.masked_fill(torch.arange(start, stop) > position, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + torch.einsum("bgrqk,bgke->bgrqe", weights, v[:, :, start:stop].float())
        row_max = new_max
    out = torch.where(row_sum > 0, accumulator / row_sum, 0.0)
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype)
