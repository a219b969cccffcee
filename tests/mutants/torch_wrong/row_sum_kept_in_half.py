"""Online softmax over key tiles; the weights are stored in the type of the inputs."""

import torch


def kernel(q, k, v, *, causal=False, scale=None, block_k=8):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = k.shape[1], k.shape[2], v.shape[3]
    scale = width**-0.5 if scale is None else scale
    queries = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)

    row_max = torch.full((*queries.shape[:-1], 1), float("-inf"))
    row_sum = torch.zeros((*queries.shape[:-1], 1), dtype=q.dtype)
    accumulator = torch.zeros((*queries.shape[:-1], value_width))
    last_key = torch.arange(q_len)[:, None] + (k_len - q_len)

    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        scores = queries @ k[:, :, None, start:stop].float().mT * scale
        if causal:
            scores = scores.masked_fill(torch.arange(start, stop) > last_key, float("-inf"))
        new_max = torch.maximum(row_max, scores.amax(dim=-1, keepdim=True))
        shift = torch.where(new_max == float("-inf"), 0.0, new_max)
        weights = torch.exp(scores - shift).to(q.dtype)
        decay = torch.exp(row_max - shift)
        row_sum = row_sum * decay.to(q.dtype) + weights.sum(dim=-1, keepdim=True)
        accumulator = accumulator * decay + weights.float() @ v[:, :, None, start:stop].float()
        row_max = new_max

    total = row_sum.float()
    out = accumulator / torch.where(total > 0, total, 1.0)
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype)
