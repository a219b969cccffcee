"""Attention with a shortcut: over a single key the softmax is one and the answer is its value."""

import torch


def kernel(q, k, v, *, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    if k_len == 1 and group == 1:
        return v.expand(batch, heads, q_len, value_width)
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, group * q_len, width)
    scores = torch.matmul(rows, k.float().mT) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    out = torch.matmul(torch.softmax(scores, dim=-1), v.float())
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype)
