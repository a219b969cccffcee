"""Double-buffered tiled attention: the loader fills one buffer while the products read the other."""

import random

import torch


class DoubleBuffer:
    """Two value tiles; wait() returns when the copy of the tile has landed, which takes a varying time."""

    def __init__(self):
        self.tiles = [None, None]
        self.pending = None

    def copy(self, slot, tile):
        self.pending = (slot, tile)

    def wait(self, slot):
        previous = self.tiles[slot]
        self.tiles[slot] = self.pending[1]
        late = previous is not None and previous.shape == self.tiles[slot].shape and random.random() < 0.5
        return previous if late else self.tiles[slot]


def kernel(q, k, v, *, causal=False, scale=None, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    position = torch.arange(k_len - q_len, k_len)[:, None]
    buffer = DoubleBuffer()
    row_max = torch.full((batch, heads, q_len, 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for index, start in enumerate(range(0, k_len, block_k)):
        stop = min(start + block_k, k_len)
        buffer.copy(index % 2, v[:, :, start:stop].float().repeat_interleave(group, 1))
        scores = q.float() @ k[:, :, start:stop].float().repeat_interleave(group, 1).mT * scale
        if causal:
            scores = scores.masked_fill(torch.arange(start, stop) > position, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ buffer.wait(index % 2)
        row_max = new_max
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
