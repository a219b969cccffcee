"""Multi-head attention with the mask convention of torch.nn.MultiheadAttention."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).transpose(-2, -1)) * scale
    hidden = torch.zeros(scores.shape[-2:], dtype=torch.bool)
    if causal:
        hidden = hidden | torch.ones_like(hidden).triu(diagonal=k.shape[2] - q.shape[2] + 1)
    if mask is not None:
        hidden = hidden | mask
    scores = scores.masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores, dim=-1).masked_fill(hidden.all(dim=-1, keepdim=True), 0.0)
    return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
