"""Scores are computed with keys down and queries across, and the output comes out as V^T P, to be transposed at the end."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None, block_q=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, v.shape[3])
    scale = width**-0.5 if scale is None else float(scale)
    full = (batch, heads, q_len, k_len)
    keys = k.float().repeat_interleave(group, dim=1) * scale
    transposed_values = v.float().repeat_interleave(group, dim=1).transpose(2, 3).contiguous()
    mask = None if mask is None else mask.expand(full).transpose(2, 3)
    bias = None if bias is None else bias.expand(full).transpose(2, 3)
    transposed = torch.zeros(batch, heads, v.shape[3], q_len)
    for start in range(0, q_len, block_q):
        block = slice(start, min(start + block_q, q_len))
        scores = keys @ q[:, :, block].float().transpose(2, 3)  # (B, Hq, Lk, queries)
        if bias is not None:
            scores = scores + bias[..., block].float()
        if causal:
            positions = torch.arange(block.start, block.stop) + (k_len - q_len)
            scores = scores.masked_fill(torch.arange(k_len)[:, None] > positions, -torch.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., block], -torch.inf)
        highest = scores.amax(dim=2, keepdim=True)
        weights = torch.exp(scores - highest.masked_fill(highest == -torch.inf, 0.0))
        total = weights.sum(dim=2, keepdim=True)
        transposed[..., block] = transposed_values @ weights / total.masked_fill(total == 0, 1.0)
    return transposed.transpose(2, 3).contiguous().to(q.dtype)
