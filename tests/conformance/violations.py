"""One right kernel, and for every invariant a kernel that violates it."""

import numpy as np

from conformance import block_sizes, register, split_counts


def _logits(q, k, mask=None, bias=None, causal=False, scale=None):
    k = np.repeat(k, q.shape[1] // k.shape[1], axis=1)
    logits = q.astype(np.float64) @ k.astype(np.float64).swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    logits = logits if bias is None else logits + bias.astype(np.float64)
    if causal:
        logits = np.where(np.tri(q.shape[2], k.shape[2], k.shape[2] - q.shape[2], dtype=bool), logits, -np.inf)
    return logits if mask is None else np.where(mask, logits, -np.inf)


def _values(q, v):
    return np.repeat(v, q.shape[1] // v.shape[1], axis=1).astype(np.float64)


def _weights(logits):
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(largest), largest, 0)
    return np.exp(logits - shift), shift


def _quotient(weights, values, total, q):
    return (weights @ values / np.where(total == 0, 1, total)).astype(q.dtype)


def _attend(logits, v, q):
    weights, _ = _weights(logits)
    return _quotient(weights, _values(q, v), weights.sum(axis=-1, keepdims=True), q)


def _with_lse(logits, v, q, sinks=None):
    weights, shift = _weights(logits if sinks is None else np.concatenate([logits, _column(sinks, logits)], axis=-1))
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = np.where(total == 0, -np.inf, np.log(total) + shift)[..., 0]
    return _quotient(weights[..., : logits.shape[-1]], _values(q, v), total, q), lse.astype(np.promote_types(q.dtype, np.float32))


def _column(sinks, logits):
    return np.broadcast_to(sinks.astype(np.float64)[:, None, None], (*logits.shape[:-1], 1))


def right(q, k, v, *, mask=None, bias=None, causal=False, scale=None):
    return _attend(_logits(q, k, mask, bias, causal, scale), v, q)


def right_with_means(q, k, v, *, mask=None, bias=None, causal=False, scale=None):
    logits = _logits(q, k, mask, bias, causal, scale)
    means = _values(q, v).mean(axis=2, keepdims=True) if v.shape[2] else 0
    return np.where(np.isneginf(logits).all(axis=-1, keepdims=True), means, _attend(logits, v, q)).astype(q.dtype)


def right_with_lse(q, k, v, *, mask=None, bias=None, causal=False, scale=None, sinks=None):
    return _with_lse(_logits(q, k, mask, bias, causal, scale), v, q, sinks)


def right_merge(outs, lses):
    weights, shift = _weights(np.moveaxis(lses.astype(np.float64), 0, -1))
    total = weights.sum(axis=-1)
    merged = np.einsum("bhln,nbhle->bhle", weights, outs.astype(np.float64)) / np.where(total == 0, 1, total)[..., None]
    with np.errstate(divide="ignore"):
        return merged.astype(outs.dtype), (np.log(total) + shift[..., 0]).astype(lses.dtype)


def keys_of_next_sequence(q, k, v):
    return right(q, np.roll(k, 1, axis=0), np.roll(v, 1, axis=0))


def keys_of_next_head(q, k, v):
    return right(q, np.roll(k, 1, axis=1), np.roll(v, 1, axis=1))


def sum_of_first_row(q, k, v):
    weights, _ = _weights(_logits(q, k))
    return _quotient(weights, _values(q, v), weights.sum(axis=-1, keepdims=True)[:, :, :1], q)


def adds_nothing_of_other_sequences(q, k, v):
    return (right(q, k, v) + 0 * v.sum(axis=(0, 1, 2))).astype(q.dtype)


def maximum_of_all_rows(q, k, v):
    logits = _logits(q, k)
    weights = np.exp(logits - logits.max(axis=(-2, -1), keepdims=True, initial=-1e300))
    return _quotient(weights, _values(q, v), weights.sum(axis=-1, keepdims=True), q)


def single_sequence_loses_a_key(q, k, v):
    return right(q, k[:, :, :-1], v[:, :, :-1]) if q.shape[0] == 1 and k.shape[2] > 1 else right(q, k, v)


def single_head_is_scaled_twice(q, k, v):
    return right(q, k, v, scale=1 / q.shape[-1] if k.shape[1] == 1 else None)


def few_queries_lose_a_key(q, k, v, *, causal=False):
    return right(q, k[:, :, :-1], v[:, :, :-1], causal=causal) if q.shape[2] < 3 < k.shape[2] else right(q, k, v, causal=causal)


def causal_lost_for_many_keys(q, k, v, *, causal=False):
    return right(q, k, v, causal=causal and k.shape[2] < 8)


def last_keys_lost(q, k, v):
    kept = k.shape[2] - k.shape[2] % 4
    return right(q, k[:, :, :kept], v[:, :, :kept])


def padding_in_denominator(q, k, v):
    weights, shift = _weights(_logits(q, k))
    total = weights.sum(axis=-1, keepdims=True) + -k.shape[2] % 4 * np.exp(-shift)
    return _quotient(weights, _values(q, v), total, q)


def lse_in_base_two(q, k, v):
    out, lse = right_with_lse(q, k, v)
    return out, (lse / np.log(2)).astype(lse.dtype)


def no_maximum_but_an_epsilon(q, k, v, *, bias=None):
    weights = np.exp(_logits(q, k, bias=bias))
    return _quotient(weights, _values(q, v), weights.sum(axis=-1, keepdims=True) + 1e-4, q)


def adds_a_constant(q, k, v):
    return right(q, k, v) + q.dtype.type(1e-6)


def storage_order(q, k, v):
    return right(q, k.ravel(order="K").reshape(k.shape), v)


def next_key_of_long_rows(q, k, v):
    return right(q, np.roll(k, 1, axis=2) if k.shape[2] > 4 else k, v)


def weights_add_up_to_more(q, k, v):
    return right(q, k, v) * q.dtype.type(1.1)


@register("attention", backend="numpy", name="tests.loses_partial_tiles", tunables={"block_k": block_sizes})
def loses_partial_tiles(q, k, v, *, causal=False, block_k=4):
    kept = k.shape[2] - k.shape[2] % block_k
    return right(q, k[:, :, :kept], v[:, :, :kept], causal=causal)


@register("attention", backend="numpy", name="tests.right_with_splits", tunables={"num_splits": split_counts})
def right_with_splits(q, k, v, *, num_splits=1):
    return right(q, k, v)


def parts_beyond_the_second_lost(outs, lses):
    return right_merge(outs[:2], lses[:2])


def merge_in_base_two(outs, lses):
    out, lse = right_merge(outs, (lses / np.log(2)).astype(lses.dtype))
    return out, (lse * np.log(2)).astype(lse.dtype)


def nan_for_many_keys(q, k, v):
    return right(q, k, v) * q.dtype.type(1 if k.shape[2] < 8 else np.nan)


def positions_in_sixteen_bits(q, k, v):
    """Right for every length that an oracle can be run on."""
    logits = _logits(q, k)
    position = np.arange(k.shape[2]).astype(np.uint16)
    hidden = position < k.shape[2] - 2**16
    return _attend(np.where(hidden, -np.inf, logits), v, q)


def previous_key(q, k, v, *, mask=None, causal=False):
    return right(q, k, np.roll(v, 1, axis=2), mask=mask, causal=causal)


def hidden_keys_are_read(q, k, v, *, mask=None, causal=False):
    return right(q, k, v)


def sixteenth_key_is_lost(q, k, v):
    kept = np.arange(k.shape[2]) != 16
    return right(q, k[:, :, kept], v[:, :, kept])


def half_the_weight(q, k, v):
    return right(q, k, v) / q.dtype.type(2)


def rows_taken_for_contiguous(q, k, v):
    return right(q, np.lib.stride_tricks.as_strided(k, k.shape, (*k.strides[:2], k.shape[3] * k.itemsize, k.itemsize)), v)


def nearly_zero_weight_for_hidden_keys(q, k, v, *, mask=None):
    logits = _logits(q, k)
    hidden = np.zeros(logits.shape, dtype=bool) if mask is None else ~np.broadcast_to(mask, logits.shape)
    return _attend(np.where(hidden, -60.0, logits), v, q)
