"""Online softmax with zero-initialised statistics."""

import torch


def kernel(q, k, v, *, bias=None, causal=False, softcap=None, scale=None, block_k=80):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else scale
    statistics = torch.zeros(2, batch, heads, q_len, 1)
    row_max, row_sum = statistics[0], statistics[1]
    accumulator = torch.zeros(batch, heads, q_len, value_width)
    bias = None if bias is None else bias.float().expand(batch, heads, q_len, k_len)
    position = torch.arange(q_len)[:, None] + k_len - q_len
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        scores = q.float() @ k[:, :, start:stop].float().repeat_interleave(group, 1).mT * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if bias is not None:
            scores = scores + bias[..., start:stop]
        if causal:
            scores = torch.where(torch.arange(start, stop) <= position, scores, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        weights, decay = torch.exp(scores - new_max), torch.exp(row_max - new_max)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ v[:, :, start:stop].float().repeat_interleave(group, 1)
        row_max = new_max
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
