"""FlashAttention-2 loop order: for every query tile, the key tiles up to the diagonal."""

import torch


def kernel(q, k, v, *, causal=False, scale=None, block_q=64, block_k=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    for first in range(0, q_len, block_q):
        last = min(first + block_q, q_len)
        queries = q[:, :, first:last].float() * scale
        row_max = torch.full((batch, heads, last - first, 1), -torch.inf)
        row_sum = torch.zeros(batch, heads, last - first, 1)
        accumulator = torch.zeros(batch, heads, last - first, v.shape[3])
        end = min(k_len, last) if causal else k_len
        for start in range(0, end, block_k):
            stop = min(start + block_k, k_len)
            scores = queries @ keys[:, :, start:stop].mT
            if causal:
                position = torch.arange(first, last)[:, None] + (k_len - q_len)
                scores = scores.masked_fill(torch.arange(start, stop) > position, -torch.inf)
            new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
            shift = torch.where(new_max == -torch.inf, 0.0, new_max)
            weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
            row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
            accumulator = accumulator * decay + weights @ values[:, :, start:stop]
            row_max = new_max
        out[:, :, first:last] = torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
    return out
