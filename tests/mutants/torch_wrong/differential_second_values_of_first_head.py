"""Differential attention in its form of two values."""

import torch


def softmax(logits):
    weights = torch.exp(logits - logits.amax(dim=-1, keepdim=True).clamp(min=-1e30)) if logits.shape[-1] else logits
    total = weights.sum(dim=-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1)


def hidden(queries, keys):
    return torch.arange(keys) > torch.arange(queries)[:, None] + keys - queries


def kernel(q1, k1, q2, k2, v, *, lam, v2=None, causal=False, scale=None):
    group = q1.shape[1] // k1.shape[1]
    scale = q1.shape[3] ** -0.5 if scale is None else scale
    second = v if v2 is None else v2[:, :1].expand_as(v)
    parts = []
    for q, k, x in ((q1, k1, v), (q2, k2, second)):
        k, x = (y.repeat_interleave(group, dim=1).float() for y in (k, x))
        logits = q.float() @ k.mT * scale
        if causal:
            logits = logits.masked_fill(hidden(q.shape[2], k.shape[2]), -torch.inf)
        parts.append(softmax(logits) @ x)
    return (parts[0] - lam * parts[1]).to(q1.dtype)
