"""Attention with soft-capped logits, as a chain of score modifications."""

import torch


def cap(scores, softcap):
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def kernel(q, k, v, *, mask=None, causal=False, window=None, softcap=None, scale=None):
    q_len, k_len = q.shape[2], k.shape[2]
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).mT) * scale
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    left, right = (None, None) if window is None else window
    if left is not None:
        visible = visible.triu(k_len - q_len - left)
    if right is not None:
        visible = visible.tril(k_len - q_len + right)
    if mask is not None:
        visible = visible & mask
    scores = cap(scores.masked_fill(~visible, -torch.inf), softcap)
    weights = torch.softmax(scores, dim=-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
