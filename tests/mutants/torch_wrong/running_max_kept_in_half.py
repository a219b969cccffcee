"""Online softmax in the FlashAttention-2 order; the statistics of a row live between tiles in a small workspace."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None, block_k=64):
    batch, heads, q_len, width = q.shape
    k_len = k.shape[2]
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    mask = None if mask is None else mask.expand(batch, heads, q_len, k_len)
    bias = None if bias is None else bias.expand(batch, heads, q_len, k_len)
    rows = torch.arange(q_len)[:, None] + k_len - q_len

    stored_max = torch.full((batch, heads, q_len, 1), float("-inf"), dtype=q.dtype)
    row_sum = torch.zeros(batch, heads, q_len, 1)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, k_len, block_k):
        tile = slice(start, min(start + block_k, k_len))
        scores = q.float() @ k[:, :, tile].repeat_interleave(group, 1).float().mT * scale
        if bias is not None:
            scores = scores + bias[..., tile].float()
        if causal:
            scores = scores.masked_fill(torch.arange(tile.start, tile.stop) > rows, float("-inf"))
        if mask is not None:
            scores = scores.masked_fill(~mask[..., tile], float("-inf"))
        new_max = torch.maximum(stored_max.float(), scores.amax(dim=-1, keepdim=True))
        shift = torch.where(torch.isinf(new_max), 0.0, new_max)
        weights = torch.exp(scores - shift)
        decay = torch.exp(stored_max.float() - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ v[:, :, tile].repeat_interleave(group, 1).float()
        stored_max = new_max.to(q.dtype)
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
