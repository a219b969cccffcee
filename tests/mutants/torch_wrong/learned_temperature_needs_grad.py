"""Attention of a module with a learned temperature, used for inference."""

import torch
from torch import nn


class ScaledAttention(nn.Module):
    """softmax(temperature * scale * q k^T) v, with a temperature that training left at one."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, q, k, v, mask, scale):
        group = q.shape[1] // k.shape[1]
        scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).transpose(-2, -1))
        scores = scores * scale * self.temperature
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = nn.functional.softmax(scores, dim=-1)
        if mask is not None:
            weights = weights.masked_fill(~mask.any(-1, keepdim=True), 0.0)
        return torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)


_attention = ScaledAttention().eval()


def kernel(q, k, v, *, mask=None, scale=None):
    return _attention(q, k, v, mask, q.shape[-1] ** -0.5 if scale is None else scale)
