"""Attention for small batches: two sequences at a time."""

import torch


def kernel(q, k, v, *, causal=False, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(k_len - q_len + 1)
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    step = 2 if batch > 1 else 1
    for index in range(batch // step):
        pair = slice(step * index, step * (index + 1))
        keys, values = k[pair].float().repeat_interleave(group, 1), v[pair].float().repeat_interleave(group, 1)
        scores = q[pair].float() @ keys.mT * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1)
        out[pair] = (weights.masked_fill(hidden.all(-1, keepdim=True), 0.0) @ values).to(q.dtype)
    return out
