"""Attention under a pattern, evaluated tile by tile."""

import torch


def kernel(q, k, v, *, pattern, scale=None, block_q=16, block_k=16):
    batch, heads, queries, dim = q.shape
    keys, group = k.shape[2], heads // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1).float() for x in (k, v))
    rows_scaled = q.float() * (dim**-0.5 if scale is None else scale)
    out = torch.zeros(batch, heads, queries, v.shape[-1])
    for start in range(0, queries, block_q):
        rows = torch.arange(start, min(start + block_q, queries))
        scores = torch.full((batch, heads, len(rows), keys), float("-inf"))
        for first in range(0, keys, block_k):
            columns = torch.arange(first, min(first + block_k, keys))
            visible = pattern(rows[:, None], columns[None, :] - first)
            if not visible.any():
                continue
            tile = rows_scaled[:, :, rows] @ k[:, :, columns].transpose(-1, -2)
            scores[..., columns] = tile.masked_fill(~visible, float("-inf"))
        lse = torch.logsumexp(scores, dim=-1, keepdim=True)
        weights = torch.exp(scores - torch.where(lse.isinf(), torch.zeros_like(lse), lse))
        out[:, :, rows] = weights @ v
    return out.to(q.dtype)
