"""Tiles of 32 keys; the boolean mask is loaded in two halves of 16 columns, like two registers of a matrix instruction."""

import math

import numpy as np

TILE = 32
HALF = TILE // 2


def load_mask(mask, start, k_len):
    allowed = np.ones((*mask.shape[:-1], TILE), bool)
    for half in (0, HALF):
        begin = start + half
        if begin < k_len:
            piece = mask[..., begin : begin + HALF]
            allowed[..., half : half + HALF] = False
            allowed[..., half : half + piece.shape[-1]] = piece
    return allowed


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    if mask is not None:
        mask = np.broadcast_to(mask, (batch, q_heads, q_len, k_len))
    tiles = math.ceil(k_len / TILE)
    pad = ((0, 0), (0, 0), (0, tiles * TILE - k_len), (0, 0))
    keys = np.repeat(np.pad(k.astype(np.float32), pad), group, axis=1)
    values = np.repeat(np.pad(v.astype(np.float32), pad), group, axis=1)
    queries = q.astype(np.float32) * scale

    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for tile in range(tiles):
        start = tile * TILE
        part = slice(start, start + TILE)
        if mask is None:
            allowed = np.arange(start, start + TILE) < k_len
        else:
            allowed = load_mask(mask, start, k_len)
        scores = np.where(allowed, queries @ keys[:, :, part].swapaxes(2, 3), -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        finite_top = np.where(new_top == -np.inf, 0, new_top)
        weights = np.exp(scores - finite_top)
        alpha = np.exp(top - finite_top)
        total = alpha * total + weights.sum(-1, keepdims=True)
        acc = alpha * acc + weights @ values[:, :, part]
        top = new_top
    return np.divide(acc, total, out=np.zeros_like(acc), where=total > 0).astype(q.dtype)
