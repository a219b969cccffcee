"""Tiled attention that keeps its output tile in the output's own buffer between key tiles."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None, block_k=8):
    batch, heads, q_len, width = q.shape
    k_len = k.shape[2]
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale

    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if window is not None:
        distance = torch.arange(k_len)[None, :] - (torch.arange(q_len)[:, None] + k_len - q_len)
        left, right = window
        if left is not None:
            visible = visible & (distance >= -left)
        if right is not None:
            visible = visible & (distance <= right)
    if mask is not None:
        visible = visible & mask
    visible = visible.expand(batch, heads, q_len, k_len)

    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    row_max = torch.full((batch, heads, q_len, 1), float("-inf"))
    row_sum = torch.zeros(batch, heads, q_len, 1)
    for start in range(0, k_len, block_k):
        tile = slice(start, start + block_k)
        keys = k[:, :, tile].float().repeat_interleave(group, dim=1)
        values = v[:, :, tile].float().repeat_interleave(group, dim=1)
        scores = (q.float() @ keys.mT * scale).masked_fill(~visible[..., tile], float("-inf"))
        new_max = torch.maximum(row_max, scores.amax(dim=-1, keepdim=True))
        shift = new_max.clamp(min=torch.finfo(torch.float32).min)
        weights = torch.exp(scores - shift)
        decay = torch.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(dim=-1, keepdim=True)
        out = (out * decay + weights @ values).to(q.dtype)
        row_max = new_max
    return (out.float() / row_sum.masked_fill(row_sum == 0, 1.0)).to(q.dtype)
