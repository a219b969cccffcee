"""Persistent attention kernel: work items are rows of queries; an item whose key range is empty is not scheduled."""

import torch


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    scale = width**-0.5 if scale is None else scale
    out = torch.empty(batch, heads, q_len, value_width, dtype=q.dtype)
    if k_len == 0:
        return out.zero_()
    first_row = max(q_len - k_len, 0) if causal else 0
    rows = q[:, :, first_row:].float().reshape(batch, kv_heads, heads // kv_heads, q_len - first_row, width)
    scores = torch.einsum("bgrqd,bgkd->bgrqk", rows, k.float()) * scale
    if causal:
        position = torch.arange(first_row, q_len)[:, None] + k_len - q_len
        scores = scores.masked_fill(torch.arange(k_len) > position, -torch.inf)
    result = torch.einsum("bgrqk,bgke->bgrqe", torch.softmax(scores, dim=-1), v.float())
    out[:, :, first_row:] = result.reshape(batch, heads, q_len - first_row, value_width).to(q.dtype)
    return out
