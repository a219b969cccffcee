"""Online softmax over key tiles."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_k=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k_len - q_len)
    if mask is not None:
        allowed = allowed & mask
    allowed = allowed.expand(batch, heads, q_len, k_len)
    row_max = torch.full((batch, heads, q_len, 1), float("-inf"))
    row_sum = torch.zeros(batch, heads, q_len, 1)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        keys = k[:, :, start:stop].float().repeat_interleave(group, 1)
        scores = torch.matmul(q.float(), keys.mT) * scale
        scores = scores.masked_fill(~allowed[..., start:stop], float("-inf"))
        new_max = torch.maximum(row_max, scores.amax(dim=-1, keepdim=True))
        weights = torch.exp(scores - new_max)
        decay = torch.exp(row_max - new_max)
        row_sum = row_sum * decay + weights.sum(dim=-1, keepdim=True)
        accumulator = accumulator * decay + torch.matmul(weights, v[:, :, start:stop].float().repeat_interleave(group, 1))
        row_max = new_max
    out = accumulator / row_sum.masked_fill(row_sum == 0, 1.0)
    return out.masked_fill(~allowed.any(dim=-1, keepdim=True), 0.0).to(q.dtype)
