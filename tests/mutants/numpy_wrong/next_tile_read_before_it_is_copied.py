"""Producer and consumer: one thread copies the tiles of keys and values to a stage, the other one computes."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

TILE = 64


def kernel(q, k, v, *, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    stages = [
        (np.zeros((batch, kv_heads, TILE, width), np.float32), np.zeros((batch, kv_heads, TILE, v.shape[3]), np.float32)) for _ in range(2)
    ]

    def copy(tile):
        part = slice(tile * TILE, min((tile + 1) * TILE, k_len))
        for stage, source in zip(stages[tile % 2], (k, v)):
            stage[:, :, : part.stop - part.start] = source[:, :, part]

    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    top = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group * q_len, v.shape[3]), np.float32)
    tiles = -(-k_len // TILE)
    with ThreadPoolExecutor(max_workers=1) as producer:
        if tiles:
            producer.submit(copy, 0).result()
        for tile in range(tiles):
            count = min(TILE, k_len - tile * TILE)
            pending = producer.submit(copy, tile + 1) if tile + 1 < tiles else None
            keys, values = (stage[:, :, :count] for stage in stages[tile % 2])
            scores = queries @ keys.swapaxes(2, 3)
            new_top = np.maximum(top, scores.max(-1, keepdims=True))
            weights, decay = np.exp(scores - new_top), np.exp(top - new_top)
            total = total * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values
            top = new_top
            if pending is not None and pending.done():
                pending.result()
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
