"""Kernels with planted mistakes, for the tests of diagnosis: each right but for what its name says."""

import numpy as np

from conformance import register

_CALLS, _KEYS = [], {}


def attention(q, k, v, *, allowed=True, scale=None, logits_of=lambda logits: logits, empty=0.0):
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    logits = logits_of(q @ k.swapaxes(-1, -2) * q.dtype.type(q.shape[-1] ** -0.5 if scale is None else scale))
    logits = np.where(np.broadcast_to(allowed, logits.shape), logits, -np.inf)
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isfinite(largest), largest, 0))
    total = weights.sum(axis=-1, keepdims=True)
    return np.where(total == 0, q.dtype.type(empty), weights @ v / np.where(total == 0, 1, total))


def causal_mask(q, k, shift=0):
    queries, keys = q.shape[2], k.shape[2]
    return np.arange(keys) <= np.arange(queries)[:, None] + keys - queries + shift


def last_key_dropped_after_whole_tiles(q, k, v, *, scale=None):
    lone = k.shape[2] % 64 == 1
    return attention(q, k, v, allowed=np.arange(k.shape[2]) < k.shape[2] - lone, scale=scale)


def group_of_three_reads_the_first_head(q, k, v, *, scale=None):
    if q.shape[1] == 3 * k.shape[1]:
        k, v = np.broadcast_to(k[:, :1], k.shape), np.broadcast_to(v[:, :1], v.shape) + 1
    return attention(q, k, v, scale=scale)


def mask_lost_with_causal(q, k, v, *, mask=None, causal=False, scale=None):
    allowed = causal_mask(q, k) if causal else True if mask is None else mask
    return attention(q, k, v, allowed=allowed, scale=scale)


def second_sequence_unwritten(q, k, v, *, scale=None):
    out = attention(q, k, v, scale=scale)
    out[1:] = 0
    return out


def broadcast_keys_read_once(q, k, v, *, scale=None):
    if k.strides[1] == 0 and k.shape[1] > 1:
        v = v[:, :1]
        return attention(q, k[:, :1], v, scale=scale)
    return attention(q, k, v, scale=scale)


def raises_for_scattered_queries(q, k, v, *, scale=None):
    if not q.flags.c_contiguous:
        raise ValueError("the queries should be contiguous")
    return attention(q, k, v, scale=scale)


def head_major_with_blocking_mask(q, k, v, *, mask=None, scale=None):
    """Takes and returns (B, L, H, D); True in the mask hides."""
    q, k, v = (np.ascontiguousarray(np.swapaxes(x, 1, 2)) for x in (q, k, v))
    out = attention(q, k, v, allowed=True if mask is None else ~mask, scale=scale)
    return np.ascontiguousarray(np.swapaxes(out, 1, 2))


def head_major(q, k, v, *, scale=None):
    """Takes and returns (B, L, H, D)."""
    return head_major_with_blocking_mask(q, k, v, scale=scale)


def blocking_mask(q, k, v, *, mask=None, scale=None):
    return attention(q, k, v, allowed=True if mask is None else ~mask, scale=scale)


def additive_mask(q, k, v, *, mask=None, scale=None):
    """The mask is added; a row without keys is NaN."""
    added = 0 if mask is None else mask
    return attention(q, k, v, scale=scale, logits_of=lambda logits: logits + added, empty=np.nan)


def two_conventions(q, k, v, *, causal=False, scale=None):
    """Causality from the first key, and heads interleaved."""
    group = q.shape[1] // k.shape[1]
    allowed = causal_mask(q, k, shift=q.shape[2] - k.shape[2]) if causal else True
    return attention(q, np.tile(k, (1, group, 1, 1)), np.tile(v, (1, group, 1, 1)), allowed=allowed, scale=scale)


def convention_and_mistake(q, k, v, *, causal=False, softcap=None, scale=None):
    """Causality from the first key; the softcap is not multiplied back."""
    cap = (lambda logits: logits) if softcap is None else lambda logits: np.tanh(logits / q.dtype.type(softcap))
    allowed = causal_mask(q, k, shift=q.shape[2] - k.shape[2]) if causal else True
    return attention(q, k, v, allowed=allowed, scale=scale, logits_of=cap)


def two_mistakes(q, k, v, *, causal=False, softcap=None, scale=None):
    """A query does not see its own key; the softcap cuts."""
    cap = (lambda logits: logits) if softcap is None else lambda logits: np.clip(logits, -softcap, softcap)
    return attention(q, k, v, allowed=causal_mask(q, k, shift=-1) if causal else True, scale=scale, logits_of=cap)


def reads_ten_bits(q, k, v, *, scale=None):
    """The products lose the low digits of both operands, as with TF32."""
    cut = lambda x: (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)  # noqa: E731
    return attention(cut(q), cut(k), cut(v), scale=scale)


def wrong_after_three_calls(q, k, v, *, scale=None):
    _CALLS.append(1)
    return attention(q, k, v, scale=scale) + np.float32(len(_CALLS) > 40)


def keeps_the_keys_of_a_shape(q, k, v, *, scale=None):
    return attention(q, _KEYS.setdefault(k.shape, k.copy()), v, scale=scale)


@register("attention", backend="numpy", name="diagnosed.chosen_tiles", tunables={"block_k": (16, 32)})
def chosen_tiles(q, k, v, *, scale=None, block_k=16):
    if block_k not in (16, 32):
        raise AssertionError("no such tile was compiled")
    keys = k.shape[2]
    return attention(q, k, v, allowed=np.arange(keys) < (keys // block_k * block_k or keys), scale=scale)
