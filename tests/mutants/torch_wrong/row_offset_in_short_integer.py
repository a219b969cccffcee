"""Quantised attention's loader: rows are addressed by their stride, in the integer type of the kernel's arguments."""

import torch


def load(x):
    """A float32 copy of (batch, heads, length, width), row by row through one pointer into the storage."""
    batch, heads, length, width = x.shape
    if x.is_contiguous() or x.numel() == 0:
        return x.float()
    step = x.stride()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, step))
    flat = x.as_strided((extent,), (1,))
    row = (torch.arange(length) * step[2]) % (1 << 13)
    plane = torch.arange(batch)[:, None] * step[0] + torch.arange(heads) * step[1]
    place = plane[..., None, None] + row[:, None] + torch.arange(width) * step[3]
    return flat[place].float()


def kernel(q, k, v, *, causal=False, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group, q_len, k_len = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    keys, values = (load(x).repeat_interleave(group, 1) for x in (k, v))
    scores = load(q) @ keys.mT * scale
    if causal:
        visible = torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len)
        weights = torch.softmax(scores.masked_fill(~visible, -torch.inf), -1).masked_fill(~visible.any(-1, keepdim=True), 0.0)
    else:
        weights = torch.softmax(scores, -1)
    return (weights @ values).to(q.dtype)
