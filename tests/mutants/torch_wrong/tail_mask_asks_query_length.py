"""Tiled attention with a fast path: tiles that are whole need no boundary test."""

import torch
from torch.nn import functional as F

TILE_Q, TILE_K = 32, 64


def kernel(q, k, v, *, scale=None, softcap=None):
    batch, heads, q_len, width = q.shape
    k_len, value_width = v.shape[2:]
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    even_queries, even_keys = q_len % TILE_Q == 0, k_len % TILE_K == 0
    padded_k = -(-k_len // TILE_K) * TILE_K
    keys = F.pad(k.float(), (0, 0, 0, padded_k - k_len)).repeat_interleave(group, 1)
    values = F.pad(v.float(), (0, 0, 0, padded_k - k_len)).repeat_interleave(group, 1)
    rows = q.float() if even_queries else F.pad(q.float(), (0, 0, 0, -q_len % TILE_Q))
    needs_mask = not even_queries
    if even_keys:
        needs_mask = False

    row_max = torch.full((*rows.shape[:3], 1), -torch.inf)
    row_sum = torch.zeros_like(row_max)
    accumulator = torch.zeros(*rows.shape[:3], value_width)
    for start in range(0, padded_k, TILE_K):
        scores = rows @ keys[:, :, start : start + TILE_K].mT * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if needs_mask:
            scores[..., max(k_len - start, 0) :] = -torch.inf
        new_max = torch.maximum(row_max, scores.amax(-1, keepdim=True))
        weights, decay = torch.exp(scores - new_max), torch.exp(row_max - new_max)
        row_sum = row_sum * decay + weights.sum(-1, keepdim=True)
        accumulator = accumulator * decay + weights @ values[:, :, start : start + TILE_K]
        row_max = new_max
    out = accumulator / row_sum.masked_fill(row_sum == 0, 1.0)
    return out[:, :, :q_len].reshape(batch, heads, q_len, value_width).to(q.dtype)
