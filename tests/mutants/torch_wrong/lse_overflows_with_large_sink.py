"""Attention with sinks: the sink joins the denominator after the row has been reduced."""

import torch


def attention_with_lse(q, k, v, *, mask=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    top = torch.full((batch, heads, q_len, 1), -torch.inf) if k_len == 0 else scores.amax(-1, keepdim=True)
    if sinks is not None:
        sink = sinks.float().view(1, heads, 1, 1).expand(batch, heads, q_len, 1)
        top = torch.where(top == -torch.inf, sink, top)
    top = torch.where(top == -torch.inf, 0.0, top)
    weights = torch.exp(scores - top)
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + torch.exp(sink - top)
    out = weights @ v.float().repeat_interleave(group, 1) / total.masked_fill(total == 0, 1.0)
    return out.to(q.dtype), (top + torch.log(total)).squeeze(-1)
