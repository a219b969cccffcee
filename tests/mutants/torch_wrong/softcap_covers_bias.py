"""Attention with soft-capped logits and position bias."""

import torch


def logits(q, k, bias, softcap, scale):
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * scale
    if bias is not None:
        scores = scores + bias
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def kernel(q, k, v, *, mask=None, bias=None, causal=False, softcap=None, scale=None):
    group = q.shape[1] // k.shape[1]
    q_len, k_len = q.shape[2], k.shape[2]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    bias = None if bias is None else bias.float()
    scores = logits(q.float(), k.float().repeat_interleave(group, 1), bias, softcap, scale)
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return torch.einsum("bhqk,bhke->bhqe", weights, v.float().repeat_interleave(group, 1)).to(q.dtype)
