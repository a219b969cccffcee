"""Longformer attention with sliding windows over padded keys, plus the global tokens outside of them."""

import numpy as np


def kernel(q, k, v, *, window, global_tokens, scale=None):
    batch, heads, length, width = q.shape
    group = heads // k.shape[1]
    if length == 0 or q.size == 0:
        return np.zeros((batch, heads, length, v.shape[-1]), q.dtype)
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    q = q * np.float32(width**-0.5 if scale is None else scale)
    reach = min(window, length)
    ends = ((0, 0), (0, 0), (reach, reach), (0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(k, ends), 2 * reach + 1, axis=2)
    values = np.lib.stride_tricks.sliding_window_view(np.pad(v, ends), 2 * reach + 1, axis=2)
    near = np.einsum("bhld,bhldw->bhlw", q, windows)
    tokens = np.unique(np.asarray(global_tokens, dtype=int))
    far = q @ k[:, :, tokens].swapaxes(2, 3)
    inside = np.abs(np.arange(length)[:, None] - tokens) <= reach
    scores = np.concatenate([near, np.where(inside, -np.inf, far)], axis=-1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    split = 2 * reach + 1
    out = np.einsum("bhlw,bhlew->bhle", weights[..., :split], values) + weights[..., split:] @ v[:, :, tokens]
    for token in tokens:
        scores = (k @ q[:, :, token, :, None])[..., 0]
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, :, token] = np.einsum("bhl,bhle->bhe", weights / weights.sum(axis=-1, keepdims=True), v)
    return out
