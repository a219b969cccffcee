"""Attention over a left-padded batch: key tiles that are all padding are skipped."""

import torch


def tiles_to_visit(visible, block_k):
    """First key of every tile that has to be computed."""
    starts = range(0, visible.shape[-1], block_k)
    return [start for start in starts if visible[0, ..., start : start + block_k].any()]


def kernel(q, k, v, *, mask=None, scale=None, softcap=None, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    queries = q.float()
    visible = torch.ones((), dtype=torch.bool) if mask is None else mask
    visible = visible.expand(batch, heads, q_len, k_len)
    if 0 in visible.shape:
        return q.new_zeros(batch, heads, q_len, v.shape[3])
    row_max = torch.full((batch, heads, q_len), -torch.inf)
    row_sum = torch.zeros(batch, heads, q_len)
    accumulator = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in tiles_to_visit(visible, block_k):
        tile = slice(start, min(start + block_k, k_len))
        keys = k[:, :, tile].float().repeat_interleave(group, dim=1)
        scores = torch.einsum("bhqd,bhkd->bhqk", queries, keys) * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores = torch.where(visible[..., tile], scores, -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, decay = torch.exp(scores - shift[..., None]), torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1)
        values = v[:, :, tile].float().repeat_interleave(group, dim=1)
        accumulator = accumulator * decay[..., None] + torch.einsum("bhqk,bhke->bhqe", weights, values)
        row_max = new_max
    return torch.where(row_sum[..., None] > 0, accumulator / row_sum[..., None], 0.0).to(q.dtype)
