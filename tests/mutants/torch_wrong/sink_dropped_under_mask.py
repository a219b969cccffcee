"""Attention with learned sinks, as in GPT-OSS."""

import torch


def masked_softmax(scores, allowed):
    weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), dim=-1)
    return weights.masked_fill(~allowed.any(-1, keepdim=True), 0.0)


def softmax_with_sinks(scores, sinks):
    """Softmax over the keys and one more logit a head, whose probability is thrown away."""
    column = sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.softmax(torch.cat([scores, column], dim=-1), dim=-1)[..., :-1]


def kernel(q, k, v, *, mask=None, causal=False, scale=None, sinks=None):
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).mT) * scale
    if causal:
        aligned = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        if mask is None and sinks is not None:
            weights = softmax_with_sinks(scores.masked_fill(~aligned, -torch.inf), sinks)
            weights = weights.masked_fill(~aligned.any(-1, keepdim=True), 0.0)
        else:
            weights = masked_softmax(scores, aligned if mask is None else mask & aligned)
    elif mask is not None:
        weights = masked_softmax(scores, mask)
    else:
        weights = torch.softmax(scores, dim=-1) if sinks is None else softmax_with_sinks(scores, sinks)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
