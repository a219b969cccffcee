"""Attention over keys padded to a multiple of 16, as tensor cores want them."""

import torch
from torch.nn import functional as F


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, value_width)
    padding = -k_len % 16
    keys, values = F.pad(k.float(), (0, 0, 0, padding)), F.pad(v.float(), (0, 0, 0, padding))
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    scores = torch.matmul(rows, keys[:, :, None].mT) * scale
    if causal:
        limit = torch.arange(q_len) + k_len - q_len
        hidden = torch.arange(k_len + padding)[None, :] > limit[:, None]
        scores = scores.masked_fill(hidden, -torch.inf)
        weights = torch.softmax(scores, dim=-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
    else:
        weights = torch.softmax(scores, dim=-1)
    return torch.matmul(weights, values[:, :, None]).reshape(batch, heads, q_len, value_width).to(q.dtype)
