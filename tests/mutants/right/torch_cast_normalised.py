"""Weights are normalised in float32 and only then cast to the storage dtype; the second product accumulates in float32."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else float(scale)
    full = (batch, heads, q_len, k_len)
    queries = q.float().reshape(batch, kv_heads, group, q_len, width)
    logits = (queries @ k.float()[:, :, None].mT).reshape(full) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if bias is not None:
        logits = logits + bias.float()
    offset = torch.arange(k_len) - torch.arange(q_len)[:, None] - (k_len - q_len)
    allowed = torch.ones(q_len, k_len, dtype=torch.bool) if not causal else offset <= 0
    if window is not None and window[0] is not None:
        allowed = allowed & (offset >= -window[0])
    if window is not None and window[1] is not None:
        allowed = allowed & (offset <= window[1])
    if mask is not None:
        allowed = allowed & mask
    column = torch.full((heads,), -torch.inf) if sinks is None else sinks.float()
    logits = torch.cat([logits.masked_fill(~allowed, -torch.inf), column[:, None, None].expand(batch, heads, q_len, 1)], dim=-1)
    empty = (logits == -torch.inf).all(dim=-1, keepdim=True)
    weights = torch.softmax(logits.masked_fill(empty, 0.0), dim=-1).masked_fill(empty, 0.0)[..., :k_len].to(q.dtype)
    out = weights.float().reshape(batch, kv_heads, group, q_len, k_len) @ v.float()[:, :, None]
    return out.reshape(batch, heads, q_len, v.shape[3]).to(q.dtype)
