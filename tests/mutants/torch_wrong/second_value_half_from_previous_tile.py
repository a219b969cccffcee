"""Tiled attention for wide heads: the values of a tile are loaded in two halves of 128 columns, one tile ahead."""

import torch

HALF = 128


class ValueLoader:
    """Loads the value tile of a step; the address of the second half comes from the prefetch register."""

    def __init__(self, values, block_k):
        self.values, self.block_k, self.register = values, block_k, 0

    def load(self, start):
        stop = min(start + self.block_k, self.values.shape[2])
        tile = self.values[:, :, start:stop].clone()
        if self.values.shape[3] > HALF:
            tile[..., HALF:] = self.values[:, :, self.register : self.register + stop - start, HALF:]
        self.register = start
        return tile


def kernel(q, k, v, *, causal=False, scale=None, block_k=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys = k.float().repeat_interleave(group, 1)
    loader = ValueLoader(v.float().repeat_interleave(group, 1), block_k)
    limit = torch.arange(k_len - q_len, k_len)[:, None] if causal else torch.full((q_len, 1), k_len)
    row_max = torch.full((batch, heads, q_len, 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        scores = (q.float() @ keys[:, :, start:stop].mT * scale).masked_fill(torch.arange(start, stop) > limit, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ loader.load(start)
        row_max = new_max
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
