"""Tiled attention in base two: the scale absorbs log2(e), so that the exponential is a plain exp2."""

import torch

LOG2_E = 1.442


def kernel(q, k, v, *, causal=False, scale=None, block_k=48):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = k.shape[1], k.shape[2], v.shape[3]
    scale = (width**-0.5 if scale is None else scale) * LOG2_E
    queries = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    keys, values = k.float().unsqueeze(2), v.float().unsqueeze(2)

    row_max = queries.new_full((*queries.shape[:4], 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = queries.new_zeros(*queries.shape[:4], value_width)
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        scores = torch.matmul(queries, keys[..., start:stop, :].mT) * scale
        if causal:
            future = torch.arange(start, stop)[None, :] > torch.arange(k_len - q_len, k_len)[:, None]
            scores = scores.masked_fill(future, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp2(scores - shift), torch.exp2(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + torch.matmul(weights, values[..., start:stop, :])
        row_max = new_max
    out = accumulator / torch.where(row_sum == 0, 1.0, row_sum)
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype)
