"""Attention with soft-capped logits, as in Gemma 2."""

import torch


def soft_cap(scores, cap, dtype):
    return cap * torch.tanh((scores / cap).to(dtype)).float()


def kernel(q, k, v, *, mask=None, bias=None, causal=False, softcap=None, scale=None):
    heads, q_len, width = q.shape[1:]
    k_len = k.shape[2]
    k, v = (torch.repeat_interleave(x, heads // x.shape[1], dim=1).float() for x in (k, v))
    scale = width**-0.5 if scale is None else scale
    scores = (q.float() @ k.mT) * scale
    if softcap is not None:
        scores = soft_cap(scores, softcap, q.dtype)
    if bias is not None:
        scores = scores + bias.float()
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = torch.tril(visible, diagonal=k_len - q_len)
    if mask is not None:
        visible = visible & mask
    scores = torch.where(visible, scores, float("-inf"))
    weights = torch.where(visible.any(-1, keepdim=True), torch.softmax(scores, -1), 0.0)
    return (weights @ v).to(q.dtype)
