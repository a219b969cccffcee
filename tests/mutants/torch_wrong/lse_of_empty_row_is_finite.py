"""Attention with its logsumexp, safe against rows without keys."""

import torch

SMALLEST = 1e-20


def attention_with_lse(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, v.shape[3]), torch.full((batch, heads, q_len), -torch.inf)
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    scores = (q.float() @ k.float().repeat_interleave(group, 1).mT * scale).masked_fill(~visible, -torch.inf)
    top = scores.amax(-1, keepdim=True)
    top = torch.where(top == -torch.inf, 0.0, top)
    weights = torch.exp(scores - top)
    total = weights.sum(-1, keepdim=True).clamp(min=SMALLEST)
    out = weights @ v.float().repeat_interleave(group, 1) / total
    return out.to(q.dtype), (top + torch.log(total)).squeeze(-1)
