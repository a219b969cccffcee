"""Attention with a persistent workspace, so that serving does not allocate."""

import torch

_WORKSPACE = {}


def workspace(elements, dtype):
    """A flat buffer of at least that many elements, kept between calls."""
    buffer = _WORKSPACE.get(dtype)
    if buffer is None or buffer.numel() < elements:
        buffer = _WORKSPACE[dtype] = torch.zeros(max(elements, 1 << 16), dtype=dtype)
    return buffer[:elements]


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    group, value_width = heads // k.shape[1], v.shape[3]
    scale = width**-0.5 if scale is None else scale
    scores = q.float() @ k.float().repeat_interleave(group, 1).mT * scale
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(k.shape[2] - q_len + 1)
        scores = scores.masked_fill(future, -torch.inf)
        scores = scores.masked_fill(future.all(-1, keepdim=True), 0.0)
        weights = scores.softmax(-1).masked_fill(future, 0.0)
    else:
        weights = scores.softmax(-1)
    out = workspace(batch * heads * q_len * value_width, q.dtype).view(batch, heads, q_len, value_width)
    out.copy_(weights @ v.float().repeat_interleave(group, 1))
    return out
