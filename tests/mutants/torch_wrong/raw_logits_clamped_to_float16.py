"""Attention with a guard against overflow of half-precision logits."""

import math

import torch


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    scale = 1.0 / math.sqrt(width) if scale is None else scale

    grouped = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    raw = torch.matmul(grouped, k.float().transpose(-1, -2)[:, :, None])
    if q.dtype == torch.float16:
        limit = torch.finfo(torch.float16).max
        raw = raw.clamp(min=-limit, max=limit)
    scores = raw * scale

    if causal:
        position = torch.arange(q_len) + (k_len - q_len)
        hidden = torch.arange(k_len)[None, :] > position[:, None]
        scores = scores.masked_fill(hidden, float("-inf"))
        weights = torch.softmax(scores, dim=-1).masked_fill(hidden.all(dim=-1, keepdim=True), 0.0)
    else:
        weights = torch.softmax(scores, dim=-1)
    out = torch.matmul(weights, v.float()[:, :, None])
    return out.reshape(batch, heads, q_len, v.shape[3]).to(q.dtype)
