"""Attention for 16-bit inputs with float32 accumulation and a 16-bit epilogue."""

import torch


def store(accumulator, dtype):
    """The epilogue: round to a 16-bit tile, then hand it out in the caller's type."""
    if dtype.itemsize == 2:
        accumulator = accumulator.half()
    return accumulator.to(dtype)


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    scale = width**-0.5 if scale is None else scale
    keys = k.float().repeat_interleave(heads // kv_heads, dim=1)
    values = v.float().repeat_interleave(heads // kv_heads, dim=1)
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), keys) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if bias is not None:
        scores = scores + bias.float()
    distance = torch.arange(k_len) - (torch.arange(q_len) + k_len - q_len).unsqueeze(1)
    allowed = torch.ones(1, 1, q_len, k_len, dtype=torch.bool)
    if causal:
        allowed = allowed & (distance <= 0)
    if window is not None and window[0] is not None:
        allowed = allowed & (distance >= -window[0])
    if window is not None and window[1] is not None:
        allowed = allowed & (distance <= window[1])
    if mask is not None:
        allowed = allowed & mask
    scores = torch.where(allowed, scores, -torch.inf)
    if sinks is not None:
        column = sinks.float().view(1, heads, 1, 1).expand(batch, heads, q_len, 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., :k_len]
    weights = torch.where(allowed.any(dim=-1, keepdim=True), weights, 0.0)
    return store(torch.einsum("bhqk,bhke->bhqe", weights, values), q.dtype)
