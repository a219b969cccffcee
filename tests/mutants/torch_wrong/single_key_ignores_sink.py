"""Attention with sinks; over a single key there is nothing to normalise."""

import torch


def kernel(q, k, v, *, scale=None, softcap=None, sinks=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    if k_len == 1:
        return v.repeat_interleave(group, dim=1).repeat(1, 1, q_len, 1)
    scale = width**-0.5 if scale is None else scale
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), k.float().repeat_interleave(group, dim=1)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if sinks is not None:
        scores = torch.cat([scores, sinks.float().reshape(1, heads, 1, 1).expand(batch, heads, q_len, 1)], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., :k_len]
    out = torch.einsum("bhqk,bhke->bhqe", weights, v.float().repeat_interleave(group, dim=1))
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype)
