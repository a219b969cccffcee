"""SageAttention in int8 whose keys are smoothed by a matrix product with ones; tiles of keys from the last to the first."""

import torch


def int8(x, size):
    parts = []
    for part in x.split(size, dim=2):
        scale = part.abs().amax(dim=(2, 3), keepdim=True) / 127
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        parts.append(((part / scale).round(), scale))
    return parts


def kernel(q, k, v, *, query_block=128, key_block=64, smooth_k=True, causal=False, scale=None):
    (batch, heads, queries, width), keys = q.shape, k.shape[2]
    out = q.new_zeros(batch, heads, queries, v.shape[3])
    if not keys or not queries or not batch:
        return out
    group, scale = heads // k.shape[1], width**-0.5 if scale is None else scale
    b = k.float()
    if smooth_k:
        b = b - torch.ones(1, keys) @ b / keys
    blocks = int8(b.repeat_interleave(group, dim=1), key_block)
    c = v.float().repeat_interleave(group, dim=1)
    first = 0
    for codes, own in int8(q.float(), query_block):
        rows = codes.shape[2]
        maximum = torch.full((batch, heads, rows, 1), -torch.inf)
        total, weighted = torch.zeros_like(maximum), torch.zeros(batch, heads, rows, v.shape[3])
        for index in reversed(range(len(blocks))):
            other, other_scale = blocks[index]
            start = index * key_block
            logits = codes @ other.mT * (own * other_scale * scale)
            if causal:
                ahead = torch.arange(start, start + other.shape[2]) - torch.arange(first, first + rows)[:, None] > keys - queries
                logits = logits.masked_fill(ahead, -torch.inf)
            higher = torch.maximum(maximum, logits.amax(dim=3, keepdim=True))
            shift = higher.masked_fill(torch.isneginf(higher), 0)
            decay, weights = torch.exp(maximum - shift), torch.exp(logits - shift)
            total = total * decay + weights.sum(dim=3, keepdim=True)
            weighted = weighted * decay + weights @ c[:, :, start : start + other.shape[2]]
            maximum = higher
        out[:, :, first : first + rows] = weighted / total.masked_fill(total == 0, 1)
        first += rows
    return out
