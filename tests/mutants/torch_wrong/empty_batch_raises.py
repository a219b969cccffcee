"""Attention sequence by sequence."""

import torch


def one_sequence(q, k, v, hidden, scale):
    """q (heads, q_len, width), k and v (kv_heads, k_len, ...)."""
    rows = q.reshape(k.shape[0], q.shape[0] // k.shape[0], *q.shape[1:])
    weights = torch.softmax((rows @ k[:, None].mT * scale).masked_fill(hidden, -torch.inf), dim=-1)
    out = weights.masked_fill(hidden.all(-1, keepdim=True), 0.0) @ v[:, None]
    return out.flatten(0, 1)


def kernel(q, k, v, *, causal=False, scale=None):
    q_len, k_len = q.shape[2], k.shape[2]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    hidden = torch.zeros(q_len, k_len, dtype=torch.bool)
    if causal:
        hidden = torch.ones_like(hidden).triu(k_len - q_len + 1)
    return torch.stack([one_sequence(*part, hidden, scale) for part in zip(q.float(), k.float(), v.float(), strict=True)]).to(q.dtype)
