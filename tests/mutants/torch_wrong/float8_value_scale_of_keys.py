"""Attention in float8 with a scale for each block of tokens."""

import torch
from torch.nn.functional import pad


def hadamard(n):
    out = torch.ones(1, 1)
    while out.shape[0] < n:
        out = torch.cat([torch.cat([out, out], 1), torch.cat([out, -out], 1)], 0)
    return out


def float8(x, dtype, size):
    """Codes as float32, and the scale of each token."""
    limit, count = torch.finfo(dtype).max, -(-x.shape[2] // size)
    blocks = pad(x, (0, 0, 0, count * size - x.shape[2])).reshape(*x.shape[:2], count, size * x.shape[3])
    amax = blocks.abs().amax(dim=3, keepdim=True) if blocks.numel() else blocks.sum(dim=3, keepdim=True)
    scale = amax / limit
    scale = torch.where(scale > 0, scale, torch.ones_like(scale)).repeat_interleave(size, dim=2)[:, :, : x.shape[2]]
    return (x / scale).clamp(-limit, limit).to(dtype).float(), scale


def kernel(q, k, v, *, signs=None, format="float8_e4m3fn", query_block=64, key_block=64, causal=False, scale=None):
    group, (queries, keys) = q.shape[1] // k.shape[1], (q.shape[2], k.shape[2])
    if keys == 0:
        return q.new_zeros(*q.shape[:3], v.shape[3])
    scale = q.shape[3] ** -0.5 if scale is None else scale
    dtype = getattr(torch, format)
    a, b, c = q.float(), k.float(), v.float()
    if signs is not None:
        mix = hadamard(q.shape[3]) * q.shape[3] ** -0.5
        a, b = (a * signs.float()) @ mix, (b * signs.float()) @ mix
    (a, sa), (b, sb), (c, sc) = float8(a, dtype, query_block), float8(b, dtype, key_block), float8(c, dtype, key_block)
    logits = a @ b.repeat_interleave(group, dim=1).mT * sa * (sb.repeat_interleave(group, dim=1).mT * scale)
    if causal:
        visible = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        logits = logits.masked_fill(~visible, -torch.inf)
    maximum = logits.amax(dim=3, keepdim=True)
    weights = torch.exp(logits - maximum.masked_fill(torch.isneginf(maximum), 0))
    total = weights.sum(dim=3, keepdim=True)
    out = weights.to(torch.float8_e4m3fn).float() @ (c * sb).repeat_interleave(group, dim=1)
    return (out / total.masked_fill(total == 0, 1)).to(q.dtype)
