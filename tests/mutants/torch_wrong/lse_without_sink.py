"""Attention with sinks, and its logsumexp."""

import torch


def attention_with_lse(q, k, v, *, mask=None, causal=False, softcap=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    scores = torch.einsum("bhqd,bhkd->bhqk", q.float(), k.float().repeat_interleave(group, dim=1)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    scores = scores.masked_fill(~visible, -torch.inf)
    lse = torch.logsumexp(scores, dim=-1)
    denominator = lse
    if sinks is not None:
        denominator = torch.logaddexp(lse, sinks.float()[None, :, None].expand(batch, heads, q_len))
    weights = torch.exp(scores - denominator.masked_fill(denominator == -torch.inf, 0.0)[..., None])
    out = torch.einsum("bhqk,bhke->bhqe", weights, v.float().repeat_interleave(group, dim=1))
    return out.to(q.dtype), lse
