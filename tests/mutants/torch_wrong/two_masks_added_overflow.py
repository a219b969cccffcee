"""Decoder attention: the causal mask and the padding mask are built apart and added, as additive masks of the model's type."""

import torch


def additive(allowed, dtype):
    """Zero where allowed, the smallest finite number elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    q_len, k_len = q.shape[2], k.shape[2]
    group = q.shape[1] // k.shape[1]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    scores = (q.float() @ k.float().repeat_interleave(group, 1).mT) * scale

    combined = torch.zeros(q_len, k_len, dtype=q.dtype)
    if causal:
        combined = combined + additive(torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len), q.dtype)
    if mask is not None:
        combined = combined + additive(mask, q.dtype)
    unattended = (combined == torch.finfo(q.dtype).min).all(dim=-1, keepdim=True)
    weights = torch.softmax(torch.where(combined < 0, -torch.inf, scores), dim=-1)
    weights = weights.masked_fill(unattended, 0.0)
    return (weights @ v.float().repeat_interleave(group, 1)).to(q.dtype)
