"""Lengths are padded to multiples of 16 and widths to multiples of 8; padding keys are hidden and padding rows cut off."""

import numpy as np


def _round_up(length, multiple):
    return -(-length // multiple) * multiple


def _padded(x, length, width):
    """A float32 copy, zero beyond the real length and width."""
    out = np.zeros(x.shape[:2] + (length, width), dtype=np.float32)
    out[:, :, : x.shape[2], : x.shape[3]] = x
    return out


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, value_width, group = k.shape[2], v.shape[3], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)  # of the real width, not of the padded one
    rows, columns = _round_up(q_len, 16), _round_up(k_len, 16)
    queries = _padded(q, rows, _round_up(width, 8))
    keys = np.repeat(_padded(k, columns, _round_up(width, 8)), group, axis=1)
    values = np.repeat(_padded(v, columns, _round_up(value_width, 8)), group, axis=1)
    allowed = np.zeros((batch, heads, rows, columns), dtype=bool)
    allowed[:, :, :q_len, :k_len] = True if mask is None else mask
    distance = np.arange(columns) - (np.arange(rows)[:, None] + k_len - q_len)
    if causal:
        allowed &= distance <= 0
    if window is not None and window[0] is not None:
        allowed &= distance >= -window[0]
    if window is not None and window[1] is not None:
        allowed &= distance <= window[1]

    logits = queries @ keys.swapaxes(-1, -2) * scale
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
    if bias is not None:
        logits[:, :, :q_len, :k_len] += np.asarray(bias, dtype=np.float32)
    logits = np.where(allowed, logits, -np.inf)
    highest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isneginf(highest), 0, highest))
    total = weights.sum(axis=-1, keepdims=True)
    out = weights @ values / np.where(total == 0, 1, total)
    return out[:, :, :q_len, :value_width].astype(q.dtype)
