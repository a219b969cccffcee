"""Packed training batches: self-attention takes the packed path, in which a mask arrives as the segment of every token."""

import math

import numpy as np


def segments_of(mask, tokens):
    """The segment of each token, named by its first key; None where the mask is no set of documents side by side."""
    full = np.broadcast_to(mask, (*mask.shape[:-2], tokens, tokens))
    ids = full.argmax(axis=-1)
    return ids if np.array_equal(full, ids[..., :, None] == ids[..., None, :]) else None


def attend(q, k, v, allowed, scale):
    scores = np.matmul(q, k.swapaxes(-1, -2)) * scale
    scores = np.where(allowed, scores, -np.inf)
    peak = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(axis=-1, keepdims=True)
    return np.matmul(weights, v) / np.where(total > 0, total, 1)


def packed_attention(q, k, v, scale, segment_ids=None):
    allowed = np.bool_(True) if segment_ids is None else segment_ids[..., :, None] == segment_ids[..., None, :]
    return attend(q, k, v, allowed, scale)


def kernel(q, k, v, *, mask=None, scale=None):
    group, scale = q.shape[1] // k.shape[1], 1.0 / math.sqrt(q.shape[3]) if scale is None else scale
    tokens, queries = q.shape[2], q.astype(np.float32)
    keys, values = (np.repeat(part.astype(np.float32), group, axis=1) for part in (k, v))
    if tokens and tokens == k.shape[2]:
        ids = None if mask is None else segments_of(np.atleast_2d(mask), tokens)
        if ids is not None or mask is None:
            return packed_attention(queries, keys, values, scale).astype(q.dtype)
    return attend(queries, keys, values, np.bool_(True) if mask is None else mask, scale).astype(q.dtype)
