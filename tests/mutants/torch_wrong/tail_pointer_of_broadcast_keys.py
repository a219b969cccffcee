"""Tiled attention with a vectorised loader: 32 rows at a time, and a scalar loader for what is left."""

import torch

TILE = 32


def load_tile(x, start, stop):
    """Rows start..stop of every head."""
    if stop - start == TILE or x.stride(1) != 0:
        return x[:, :, start:stop].float()
    # Broadcast heads: one copy of the rows serves them all; the row pointer is bumped once per head.
    rows = [x[:, head, max(start - head, 0) : max(start - head, 0) + stop - start] for head in range(x.shape[1])]
    return torch.stack(rows, dim=1).float()


def kernel(q, k, v, *, mask=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    allowed = torch.ones(1, dtype=torch.bool) if mask is None else mask
    allowed = allowed.expand(batch, heads, q_len, k_len)
    row_max = torch.full((batch, heads, q_len, 1), -torch.inf)
    row_sum = torch.zeros(batch, heads, q_len, 1)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[-1])
    for start in range(0, k_len, TILE):
        stop = min(start + TILE, k_len)
        keys = load_tile(k, start, stop).repeat_interleave(group, dim=1)
        values = load_tile(v, start, stop).repeat_interleave(group, dim=1)
        scores = torch.where(allowed[..., start:stop], q.float() @ keys.mT * scale, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = (scores - shift).exp(), (row_max - shift).exp()
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ values
        row_max = new_max
    return torch.where(row_sum > 0, accumulator / row_sum, 0.0).to(q.dtype)
