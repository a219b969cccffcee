"""Attention that writes its result in the memory order of the queries."""

import torch


def is_dense(x):
    """Whether the elements of the tensor fill one block of memory without gaps or overlaps."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.numel() > 0 and extent == x.numel()


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    value_width = v.shape[3]
    scale = width**-0.5 if scale is None else scale
    group = heads // k.shape[1]
    scores = q.float() @ k.float().repeat_interleave(group, dim=1).mT * scale
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(k.shape[2] - q_len + 1)
        scores = scores.masked_fill(hidden, -torch.inf)
        weights = scores.softmax(-1).masked_fill(hidden.all(-1, keepdim=True), 0.0)
    else:
        weights = scores.softmax(-1)
    result = weights @ v.float().repeat_interleave(group, dim=1)

    buffer = torch.zeros(batch * heads * q_len * value_width, dtype=q.dtype)
    out = buffer.view(batch, heads, q_len, value_width)
    if value_width == width and is_dense(q):
        buffer.as_strided(out.shape, q.stride()).copy_(result)
    else:
        out.copy_(result)
    return out
