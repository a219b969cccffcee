"""Weights are cast to the storage dtype first, and the denominator sums what was cast: numerator and denominator agree."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    scale = width**-0.5 if scale is None else float(scale)
    if k_len == 0:
        return torch.zeros(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    group = heads // kv_heads
    keys = k.float()[:, :, None].expand(-1, -1, group, -1, -1).reshape(batch, heads, k_len, width)
    values = v.float()[:, :, None].expand(-1, -1, group, -1, -1).reshape(batch, heads, k_len, v.shape[3])
    logits = torch.einsum("bhqd,bhkd->bhqk", q.float(), keys) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if bias is not None:
        logits = logits + bias.float()
    if causal:
        ahead = torch.arange(k_len)[None, :] > torch.arange(q_len)[:, None] + (k_len - q_len)
        logits = logits.masked_fill(ahead, -torch.inf)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    highest = logits.amax(dim=-1, keepdim=True)
    weights = torch.exp(logits - highest.masked_fill(highest == -torch.inf, 0.0)).to(q.dtype).float()
    total = weights.sum(dim=-1, keepdim=True)
    return (weights @ values / total.masked_fill(total == 0, 1.0)).to(q.dtype)
