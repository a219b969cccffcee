"""Sliding window attention: a single query needs no causal test, for every cached key lies before it."""

import torch


def banded(q_len, k_len, window, causal):
    """bool (q_len, k_len): which keys lie in the band."""
    distance = torch.arange(k_len).unsqueeze(0) - (torch.arange(q_len).unsqueeze(1) + (k_len - q_len))
    band = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        band &= distance <= 0
    left, right = window if window is not None else (None, None)
    if left is not None:
        band &= distance >= -left
    if right is not None:
        band &= distance <= right
    return band


def kernel(q, k, v, *, causal=False, window=None, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    scores = torch.einsum("bgrqd,bgkd->bgrqk", rows, k.float()) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if q_len > 1 or k_len == 0:
        band = banded(q_len, k_len, window, causal)
        scores = scores.masked_fill(~band, -torch.inf)
        weights = torch.softmax(scores, dim=-1).masked_fill(~band, 0.0)
    else:
        weights = torch.softmax(scores, dim=-1)
    out = torch.einsum("bgrqk,bgke->bgrqe", weights, v.float())
    return out.reshape(batch, heads, q_len, v.shape[3]).to(q.dtype)
