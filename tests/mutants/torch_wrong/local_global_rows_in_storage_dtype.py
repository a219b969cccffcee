"""Longformer attention: the window in float32, the few global rows by a plain softmax."""

import torch


def kernel(q, k, v, *, window, global_tokens, causal=False, scale=None):
    length, group = q.shape[2], q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    position = torch.arange(length)
    offset = position[:, None] - position
    mask = offset.abs() <= window
    mask[:, global_tokens] = True
    if causal:
        mask &= offset >= 0
    scores = (q.float() @ k.float().transpose(-1, -2) * scale).masked_fill(~mask, float("-inf"))
    out = (torch.softmax(scores, dim=-1) @ v.float()).to(q.dtype)
    for token in dict.fromkeys(global_tokens):
        last = token + 1 if causal else length
        scores = q[:, :, token : token + 1] @ k[:, :, :last].transpose(-1, -2) * scale
        out[:, :, token : token + 1] = torch.softmax(scores, dim=-1) @ v[:, :, :last]
    return out
