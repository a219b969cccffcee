"""Attention with a packed mask: eight keys a byte, unpacked row by row inside the kernel."""

import math

import numpy as np


def pack(mask):
    """The bytes of all rows of a (rows, keys) mask, one row after another, and the number of bytes a row takes."""
    rows = np.packbits(mask, axis=-1)
    return rows.reshape(-1), max(mask.shape[-1] // 8, 1)


def unpack(data, bytes_per_row, rows, k_len):
    needed = -(-k_len // 8)
    position = np.arange(rows)[:, None] * bytes_per_row + np.arange(needed)
    return np.unpackbits(data[position], axis=-1, count=k_len).astype(bool)


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    if q_len == 0 or k_len == 0:
        return out
    full = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    for b in range(batch):
        for h in range(q_heads):
            data, bytes_per_row = pack(full[b, h])
            allowed = unpack(data, bytes_per_row, q_len, k_len)
            scores = q[b, h].astype(np.float32) @ k[b, h // group].astype(np.float32).T * scale
            scores = np.where(allowed, scores, -np.inf)
            peak = scores.max(1, keepdims=True)
            weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
            total = weights.sum(1, keepdims=True)
            out[b, h] = weights @ v[b, h // group].astype(np.float32) / np.where(total > 0, total, 1)
    return out
