"""Attention on flattened heads: one batched product over batch * heads."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, value_width = v.shape[2:]
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    queries = q.view(batch * heads, q_len, width).float()
    keys = k.repeat_interleave(group, dim=1).reshape(batch * heads, k_len, width).float()
    values = v.repeat_interleave(group, dim=1).reshape(batch * heads, k_len, value_width).float()
    scores = torch.bmm(queries, keys.transpose(1, 2)).mul_(scale)
    allowed = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed.tril(k_len - q_len)
    if mask is not None:
        allowed = (allowed & mask).expand(batch, heads, q_len, k_len).reshape(batch * heads, q_len, k_len)
    scores.masked_fill_(~allowed, -torch.inf)
    weights = torch.softmax(scores, dim=-1).masked_fill_(~allowed.any(-1, keepdim=True), 0.0)
    return torch.bmm(weights, values).view(batch, heads, q_len, value_width).to(q.dtype)
