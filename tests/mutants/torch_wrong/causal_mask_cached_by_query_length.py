"""Attention that builds its causal mask once for every length."""

import torch

_masks = {}


def causal_mask(q_len, k_len):
    """bool (q_len, k_len), aligned at the last query and the last key."""
    cached = _masks.get(q_len)
    if cached is None or cached.shape[1] < k_len:
        cached = torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len)
        _masks[q_len] = cached
    return cached[:, :k_len]


def kernel(q, k, v, *, causal=False, softcap=None, scale=None):
    group = q.shape[1] // k.shape[1]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if causal:
        visible = causal_mask(q.shape[2], k.shape[2])
        scores = scores.masked_fill(~visible, -torch.inf)
        weights = scores.softmax(dim=-1).masked_fill(~visible.any(dim=-1, keepdim=True), 0.0)
    else:
        weights = scores.softmax(dim=-1)
    return (weights @ v.float().repeat_interleave(group, 1)).to(q.dtype)
