"""Attention with an optional statistics buffer."""

import torch


def run(q, k, v, causal, scale, statistics):
    """Attention; fills the statistics where the caller brings its own buffer."""
    group = q.shape[1] // k.shape[1]
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(k.shape[2] - q.shape[2] + 1), -torch.inf)
    lse = torch.logsumexp(scores, dim=-1)
    if statistics is None:
        statistics = lse
    weights = torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None])
    return (weights @ v.float().repeat_interleave(group, 1)).to(q.dtype)


def attention_with_lse(q, k, v, *, causal=False, scale=None):
    lse = torch.zeros(q.shape[:3])
    out = run(q, k, v, causal, q.shape[-1] ** -0.5 if scale is None else scale, lse)
    return out, lse
