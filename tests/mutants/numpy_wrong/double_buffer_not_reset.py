"""Double-buffered loop: while one tile of keys is used, the next one is copied into the other stage."""

import math

import numpy as np

TILE = 32


class Stages:
    """Two stages and the number of the one that is read next."""

    def __init__(self):
        self.tiles = [None, None]
        self.write = 0
        self.read = 0

    def put(self, tile):
        self.tiles[self.write] = tile
        self.write ^= 1

    def get(self):
        tile = self.tiles[self.read]
        self.read ^= 1
        return tile


_stages = Stages()


def kernel(q, k, v, *, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    _stages.write = 0
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    top = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group * q_len, v.shape[3]), np.float32)
    starts = range(0, k_len, TILE)
    if k_len:
        first = (k[:, :, :TILE].astype(np.float32), v[:, :, :TILE].astype(np.float32))
        _stages.put(first)
        _stages.tiles = [tile if tile is not None and tile[0].shape[:2] == (batch, kv_heads) else first for tile in _stages.tiles]
    for start in starts:
        keys, values = _stages.get()
        if start + TILE < k_len:
            following = slice(start + TILE, start + 2 * TILE)
            _stages.put((k[:, :, following].astype(np.float32), v[:, :, following].astype(np.float32)))
        scores = queries @ keys.swapaxes(2, 3)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        weights, decay = np.exp(scores - new_top), np.exp(top - new_top)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values
        top = new_top
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
