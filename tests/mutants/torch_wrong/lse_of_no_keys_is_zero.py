"""Attention with its logsumexp; nothing to do for an empty cache."""

import torch


def attention_with_lse(q, k, v, *, bias=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    group = heads // kv_heads
    if k_len == 0:
        return torch.zeros(batch, heads, q_len, value_width, dtype=q.dtype), torch.zeros(batch, heads, q_len)
    scale = width**-0.5 if scale is None else scale
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    if bias is not None:
        scores = scores + bias.float()
    lse = torch.logsumexp(scores, dim=-1)
    return (torch.exp(scores - lse.unsqueeze(-1)) @ v.float().repeat_interleave(group, 1)).to(q.dtype), lse
