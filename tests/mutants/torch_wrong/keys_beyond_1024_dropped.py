"""Attention of a model with a context of 1024 tokens; older tokens are evicted."""

import torch

CONTEXT = 1024


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, value_width = v.shape[1], v.shape[3]
    k, v = k[:, :, -CONTEXT:], v[:, :, -CONTEXT:]
    k_len = k.shape[2]
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    scores = torch.matmul(rows, k.float().unsqueeze(2).mT) * scale
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return torch.matmul(weights, v.float().unsqueeze(2)).reshape(batch, heads, q_len, value_width).to(q.dtype)
