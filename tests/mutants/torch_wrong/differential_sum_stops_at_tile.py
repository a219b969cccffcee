"""Differential attention; the second map runs over whole tiles of 64 keys."""

import torch


def softmax(logits):
    weights = torch.exp(logits - logits.amax(dim=-1, keepdim=True).clamp(min=-1e30)) if logits.shape[-1] else logits
    total = weights.sum(dim=-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1)


def hidden(queries, keys):
    return torch.arange(keys) > torch.arange(queries)[:, None] + keys - queries


def kernel(q1, k1, q2, k2, v, *, lam, causal=False, scale=None):
    group, queries, keys = q1.shape[1] // k1.shape[1], q1.shape[2], k1.shape[2]
    scale = q1.shape[3] ** -0.5 if scale is None else scale
    k1, k2, v = (x.repeat_interleave(group, dim=1).float() for x in (k1, k2, v))
    whole = keys if keys < 64 else keys - keys % 64
    parts = []
    for q, k, end in ((q1.float(), k1, keys), (q2.float(), k2, whole)):
        logits = q @ k[:, :, :end].mT * scale
        if causal:
            logits = logits.masked_fill(hidden(queries, keys)[:, :end], -torch.inf)
        parts.append(softmax(logits) @ v[:, :, :end])
    return (parts[0] - lam * parts[1]).to(q1.dtype)
