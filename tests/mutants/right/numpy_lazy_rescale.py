"""FlashAttention-4 style lazy rescaling: a row's shift moves only when its running maximum has grown by more than 8.

Until then the weights may exceed one, up to exp(8), which float32 holds easily; the final division cancels any shift.
"""

import numpy as np

LAZINESS = 8.0


def _finite(shift):
    return np.where(np.isneginf(shift), 0, shift)


def _move_shift(total, weighted, shift, highest, new_shift):
    """Rescale both sums from the old shift to the new one, in two steps through the true maximum.

    In one step the factor could be subnormal, and its lost digits would be magnified by sums as large as exp(8).
    """
    moved = new_shift > shift
    to_highest = np.where(moved, np.exp(shift - _finite(highest)), 1)
    to_new = np.where(moved, np.exp(highest - _finite(new_shift)), 1)
    return total * to_highest * to_new, weighted * to_highest * to_new


def kernel(q, k, v, *, mask=None, causal=False, scale=None, sinks=None, block_k=16):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    queries = q.astype(np.float32)
    positions = np.arange(q_len)[:, None] + k_len - q_len
    visible = None if mask is None else np.broadcast_to(mask, (batch, heads, q_len, k_len))
    shift = np.full((batch, heads, q_len, 1), -np.inf, dtype=np.float32)
    highest = shift.copy()
    total = np.zeros_like(shift)
    weighted = np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float32)
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        keys = np.repeat(k[:, :, start:stop].astype(np.float32), group, axis=1)
        values = np.repeat(v[:, :, start:stop].astype(np.float32), group, axis=1)
        logits = queries @ np.swapaxes(keys, 2, 3) * scale
        if causal:
            logits = np.where(np.arange(start, stop) <= positions, logits, -np.inf)
        if visible is not None:
            logits = np.where(visible[..., start:stop], logits, -np.inf)
        new_highest = np.maximum(highest, logits.max(axis=-1, keepdims=True))
        new_shift = np.where(new_highest > shift + LAZINESS, new_highest, shift)
        total, weighted = _move_shift(total, weighted, shift, highest, new_shift)
        weights = np.exp(logits - _finite(new_shift))
        total = total + weights.sum(axis=-1, keepdims=True)
        weighted = weighted + weights @ values
        shift, highest = new_shift, new_highest
    if sinks is not None:
        sink = np.asarray(sinks, dtype=np.float32)[:, None, None]
        new_shift = np.maximum(highest, sink)
        total, weighted = _move_shift(total, weighted, shift, highest, new_shift)
        total = total + np.exp(sink - _finite(new_shift))
    return (weighted / np.where(total == 0, 1, total)).astype(q.dtype)
