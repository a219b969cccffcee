"""Attention over key tiles of 64: the keys are padded to whole tiles and then read as a dense block."""

import torch
from torch.nn import functional as F

TILE = 64


def whole_tiles(x):
    """A dense block (batch * heads, tiles, TILE, width) of the rows, zeros behind the last one."""
    batch, heads, length, width = x.shape
    padding = -length % TILE
    if padding:
        x = F.pad(x, (0, 0, 0, padding))
    tiles = (length + padding) // TILE
    return x.as_strided((batch * heads, tiles, TILE, width), (tiles * TILE * width, TILE * width, width, 1))


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else scale
    queries = q.float().reshape(batch * kv_heads, group, q_len, width)
    key_tiles, value_tiles = whole_tiles(k).float(), whole_tiles(v).float()
    last = torch.arange(q_len)[:, None] + k_len - q_len if causal else torch.full((q_len, 1), k_len - 1)

    row_max = torch.full((batch * kv_heads, group, q_len, 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(batch * kv_heads, group, q_len, value_width)
    for tile in range(key_tiles.shape[1]):
        position = torch.arange(tile * TILE, (tile + 1) * TILE)
        scores = queries @ key_tiles[:, None, tile].mT * scale
        scores = scores.masked_fill((position > last) | (position >= k_len), -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = new_max.masked_fill(new_max == -torch.inf, 0.0)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ value_tiles[:, None, tile]
        row_max = new_max
    out = accumulator / row_sum.masked_fill(row_sum == 0, 1.0)
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype)
