"""Two halves of the keys, merged by the sigmoid of the difference of their logarithms of the sum; no common maximum."""

import numpy as np


def _half(queries, keys, values, allowed, sink):
    """Output and float64 log-sum over one set of keys; the sink (or None) is one more logit without a value."""
    logits = np.where(allowed, queries @ keys.swapaxes(-1, -2), -np.inf)
    highest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    if sink is not None:
        highest = np.maximum(highest, sink)
    shift = np.where(np.isneginf(highest), 0, highest)
    weights = np.exp(logits - shift)
    total = weights.sum(axis=-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink - shift)
    safe = np.where(total == 0, 1, total)
    return weights @ values / safe, np.where(total == 0, -np.inf, shift.astype(np.float64) + np.log(safe))


def _sigmoid(x):
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def kernel(q, k, v, *, mask=None, causal=False, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    queries = q.astype(np.float32) * scale
    keys, values = (np.repeat(x.astype(np.float32), group, axis=1) for x in (k, v))
    allowed = np.tri(q_len, k_len, k_len - q_len, dtype=bool) if causal else np.ones((q_len, k_len), dtype=bool)
    allowed = np.broadcast_to(allowed if mask is None else allowed & mask, (batch, heads, q_len, k_len))
    sink = None if sinks is None else np.asarray(sinks, dtype=np.float32)[:, None, None]
    cut = k_len // 2
    first, first_lse = _half(queries, keys[:, :, :cut], values[:, :, :cut], allowed[..., :cut], sink)
    second, second_lse = _half(queries, keys[:, :, cut:], values[:, :, cut:], allowed[..., cut:], None)
    # where both halves are empty the difference would be -inf - -inf; both outputs are zero, so any share will do
    both_empty = np.isneginf(first_lse) & np.isneginf(second_lse)
    difference = np.where(both_empty, 0, second_lse) - np.where(both_empty, 0, first_lse)
    share = _sigmoid(difference).astype(np.float32)
    other_share = _sigmoid(-difference).astype(np.float32)
    return (first * other_share + second * share).astype(q.dtype)
