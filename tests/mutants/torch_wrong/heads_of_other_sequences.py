"""Attention on flattened heads: the keys of all sequences and heads are one stack of matrices."""

import torch


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    scale = width**-0.5 if scale is None else scale
    queries = q.float().reshape(batch * heads, q_len, width)
    # One matrix a query head, by repeating the stack.
    keys = k.float().reshape(batch * kv_heads, k_len, width).repeat(heads // kv_heads, 1, 1)
    values = v.float().reshape(batch * kv_heads, k_len, value_width).repeat(heads // kv_heads, 1, 1)
    scores = torch.bmm(queries, keys.transpose(1, 2)) * scale
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(k_len - q_len + 1)
    weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
    return torch.bmm(weights, values).reshape(batch, heads, q_len, value_width).to(q.dtype)
