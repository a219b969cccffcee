"""Sliding-window kernel; the left edge of the window is cut inside tiles of 32 keys made of two faces of 16 columns."""

import math

import numpy as np

TILE = 32
FACE = 16


def left_edge(first_allowed, start):
    """True where a column of the tile that begins at `start` lies at or after the first allowed key of its row."""
    edge = first_allowed - start
    column = np.arange(TILE)
    inside = column >= edge
    # a face that lies wholly before the edge is filled at once
    partial = np.where(column < FACE, edge < FACE - 1, edge < TILE)
    return inside & partial


def kernel(q, k, v, *, window=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    left, right = (None, None) if window is None else window
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    queries = q.astype(np.float32) * scale
    position = np.arange(q_len)[:, None] + k_len - q_len

    row_max = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    row_sum = np.zeros_like(row_max)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, TILE):
        k_tile = keys[:, :, start : start + TILE]
        scores = queries @ k_tile.swapaxes(2, 3)
        count = k_tile.shape[2]
        if left is not None:
            scores = np.where(left_edge(position - left, start)[:, :count], scores, -np.inf)
        if right is not None:
            scores = np.where(start + np.arange(count) <= position + right, scores, -np.inf)
        new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
        shift = np.where(np.isneginf(new_max), 0, new_max)
        weights = np.exp(scores - shift)
        decay = np.exp(row_max - shift)
        row_sum = decay * row_sum + weights.sum(-1, keepdims=True)
        acc = decay * acc + weights @ values[:, :, start : start + TILE]
        row_max = new_max
    return (acc / np.where(row_sum > 0, row_sum, 1)).astype(q.dtype)
