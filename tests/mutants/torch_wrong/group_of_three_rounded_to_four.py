"""Grouped-query attention with packed rows: the query heads of one key/value head share a tile, token by token."""

import torch


def kernel(q, k, v, *, causal=False, scale=None, block_q=64):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else scale
    shift = (group - 1).bit_length()  # so that token = row >> shift
    packed = q.float().reshape(batch, kv_heads, group, q_len, width).transpose(2, 3).reshape(batch, kv_heads, q_len * group, width)
    keys, values = k.float(), v.float()
    out = torch.zeros(batch, kv_heads, q_len * group, value_width)
    for start in range(0, q_len * group, block_q):
        rows = torch.arange(start, min(start + block_q, q_len * group))
        scores = packed[:, :, rows] @ keys.mT * scale
        if causal:
            token = rows >> shift
            hidden = torch.arange(k_len) > (token + k_len - q_len)[:, None]
            scores = scores.masked_fill(hidden, -torch.inf)
            weights = scores.softmax(-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
        else:
            weights = scores.softmax(-1)
        out[:, :, rows] = weights @ values
    out = out.reshape(batch, kv_heads, q_len, group, value_width).transpose(2, 3)
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype)
