"""Ring attention, its processes simulated one after the other."""

import numpy as np


def shards(length, world_size, zigzag):
    parts = world_size * (2 if zigzag else 1)
    chunks = np.array_split(np.arange(length), parts)
    return [np.concatenate([chunks[rank], chunks[parts - 1 - rank]]) if zigzag else chunks[rank] for rank in range(world_size)]


def kernel(q, k, v, *, causal=False, scale=None, world_size=2, zigzag=False):
    batch, heads, length, width = q.shape
    scale = np.float32(width**-0.5 if scale is None else scale)
    group = heads // k.shape[1]
    out = np.zeros((batch, heads, length, v.shape[3]), np.float32)
    held = shards(length, world_size, zigzag)
    for rank, own in enumerate(held):
        maximum = np.full((batch, heads, len(own), 1), -np.inf, np.float32)
        total = np.zeros_like(maximum)
        gathered = np.zeros((batch, heads, len(own), v.shape[3]), np.float32)
        for step in range(world_size + (world_size == 3)):
            theirs = held[(rank - step) % world_size]
            if len(own) == 0 or len(theirs) == 0:
                continue
            keys = np.repeat(k[:, :, theirs].astype(np.float32), group, axis=1)
            values = np.repeat(v[:, :, theirs].astype(np.float32), group, axis=1)
            scores = q[:, :, own].astype(np.float32) @ keys.swapaxes(2, 3) * scale
            if causal:
                scores = np.where(theirs[None, :] <= own[:, None], scores, -np.inf)
            highest = np.maximum(maximum, scores.max(-1, keepdims=True))
            shift = np.where(np.isfinite(highest), highest, 0)
            decay, weights = np.exp(maximum - shift), np.exp(scores - shift)
            total = total * decay + weights.sum(-1, keepdims=True)
            gathered = gathered * decay + weights @ values
            maximum = highest
        out[:, :, own] = gathered / total
    return out.astype(q.dtype)
