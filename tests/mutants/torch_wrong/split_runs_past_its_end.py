"""Attention over splits of the keys, each of which runs its own online softmax in tiles of 32."""

import torch

TILE = 32


def run_split(q, k, v, begin, end, limit, scale):
    """Unnormalised accumulator, denominator and maximum over the keys begin..end."""
    row_max = torch.full((*q.shape[:3], 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(*q.shape[:3], v.shape[3])
    for start in range(begin, end, TILE):
        tile = slice(start, start + TILE)
        position = torch.arange(start, min(start + TILE, k.shape[2]))
        scores = (q @ k[:, :, tile].mT * scale).masked_fill(position > limit, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp(scores - shift), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ v[:, :, tile]
        row_max = new_max
    return accumulator, row_sum, row_max


def kernel(q, k, v, *, causal=False, scale=None, num_splits=2):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    limit = torch.arange(k_len - q_len, k_len)[:, None] if causal else torch.full((q_len, 1), k_len)
    size = -(-k_len // num_splits)
    parts = [run_split(q.float(), keys, values, begin, min(begin + size, k_len), limit, scale) for begin in range(0, k_len, max(size, 1))]
    if not parts:
        return q.new_zeros(batch, heads, q_len, v.shape[3])
    accumulators, row_sums, row_maxima = (torch.stack(column) for column in zip(*parts, strict=True))
    top = row_maxima.amax(0)
    weights = torch.exp(row_maxima - top.masked_fill(top == -torch.inf, 0.0))
    total = (row_sums * weights).sum(0)
    return ((accumulators * weights).sum(0) / total.masked_fill(total == 0, 1.0)).to(q.dtype)
