"""Attention in chunks of queries with mask and bias, for long inputs."""

import torch


def rows_of(x, start, stop):
    """The rows of a chunk; an array that is shared by all rows stays as it is."""
    if x is None or x.dim() < 2 or x.shape[-2] == 1:
        return x
    return x[..., start:stop, :]


def kernel(q, k, v, *, mask=None, bias=None, scale=None, block_q=96):
    batch, heads, q_len, width = q.shape
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    out = torch.empty(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    for start in range(0, q_len, block_q):
        count = min(block_q, q_len - start)
        scores = q[:, :, start : start + count].float() @ keys.mT * scale
        chunk_bias, chunk_mask = rows_of(bias, start, start + count), rows_of(mask, 0, count)
        if chunk_bias is not None:
            scores = scores + chunk_bias.float()
        if chunk_mask is not None:
            scores = scores.masked_fill(~chunk_mask, -torch.inf)
        weights = torch.softmax(scores, dim=-1)
        if chunk_mask is not None:
            weights = weights.masked_fill(~chunk_mask.any(-1, keepdim=True), 0.0)
        out[:, :, start : start + count] = (weights @ values).to(q.dtype)
    return out
