"""Block-sparse attention for grouped heads: the query heads of a key/value head are stacked into one tile."""

import torch


def kernel(q, k, v, *, block_mask, block_q, block_k, scale=None):
    batch, heads, queries, width = q.shape
    groups, keys = k.shape[1:3]
    group = heads // groups
    scale = width**-0.5 if scale is None else scale
    mask = block_mask.expand(batch, heads, -1, -1).unflatten(1, (groups, group))
    visited = mask.any(dim=2)  # a tile is loaded once for the whole group
    out = torch.zeros(batch, groups, group, queries, v.shape[-1])
    stacked = q.unflatten(1, (groups, group)).float() * scale
    for row in range(mask.shape[3]):
        rows = slice(row * block_q, min((row + 1) * block_q, queries))
        tokens = visited[:, :, row].repeat_interleave(block_k, dim=-1)[..., :keys]
        scores = stacked[:, :, :, rows] @ k.float()[:, :, None].transpose(-1, -2)
        scores = scores.masked_fill(~tokens[:, :, None, None], float("-inf"))
        out[:, :, :, rows] = torch.softmax(scores, dim=-1).nan_to_num(0.0) @ v.float()[:, :, None]
    return out.flatten(1, 2).to(q.dtype)
