"""Attention with its logsumexp, in base two inside."""

import math

import torch

LOG2_E = math.log2(math.e)


def attention_with_lse(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = v.shape[1:]
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, value_width), torch.full((batch, heads, q_len), -torch.inf)
    scale = width**-0.5 if scale is None else scale
    rows = q.float().reshape(batch, kv_heads, heads // kv_heads, q_len, width)
    scores = torch.einsum("bgrqd,bgkd->bgrqk", rows, k.float()) * (scale * LOG2_E)
    if causal:
        scores = scores.masked_fill(torch.ones(q_len, k_len, dtype=torch.bool).triu(k_len - q_len + 1), -torch.inf)
    top = scores.amax(-1, keepdim=True)
    top = top.masked_fill(top == -torch.inf, 0.0)
    weights = torch.exp2(scores - top)
    total = weights.sum(-1, keepdim=True)
    out = torch.einsum("bgrqk,bgke->bgrqe", weights, v.float()) / total.masked_fill(total == 0, 1.0)
    lse = torch.log2(total) + top
    return out.reshape(batch, heads, q_len, value_width).to(q.dtype), lse.reshape(batch, heads, q_len)
