"""Small kernels that the tests of the suite certify and refute."""

import os
import signal
import time

import numpy as np

from conformance import block_sizes, register

READY = np.ones(1)


def right(q, k, v, *, causal=False, scale=None):
    batch, heads, queries, width = q.shape
    keys = k.shape[2]
    group = heads // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    logits = (q @ k.swapaxes(-1, -2)) * np.float32(width**-0.5 if scale is None else scale)
    allowed = np.ones((queries, keys), dtype=bool)
    if causal:
        allowed = np.arange(keys) <= np.arange(queries)[:, None] + keys - queries
    logits = np.where(allowed, logits, np.float32(-np.inf))
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isfinite(largest), largest, 0))
    total = weights.sum(axis=-1, keepdims=True)
    return (weights @ v) / np.where(total == 0, 1, total)


def weights_in_half(q, k, v, *, scale=None):
    width, group = q.shape[-1], q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    logits = (q @ k.swapaxes(-1, -2)) * np.float32(width**-0.5 if scale is None else scale)
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isfinite(largest), largest, 0)).astype(np.float16).astype(np.float32)
    total = weights.sum(axis=-1, keepdims=True)
    return (weights @ v) / np.where(total == 0, 1, total)


def top_left(q, k, v, *, causal=False, scale=None):
    if causal and k.shape[2] > q.shape[2]:
        k, v = k[:, :, : q.shape[2]], v[:, :, : q.shape[2]]
    elif causal:
        missing = q.shape[2] - k.shape[2]
        padding = np.zeros((*k.shape[:2], missing, 1), k.dtype)
        cut = right(q[:, :, : k.shape[2]], k, v, causal=True, scale=scale)
        rest = right(q[:, :, k.shape[2] :], k, v, scale=scale)
        return np.concatenate([cut, rest], axis=2) if padding.shape[2] else cut
    return right(q, k, v, causal=causal, scale=scale)


def unstable(q, k, v, *, scale=None):
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    weights = np.exp(q @ k.swapaxes(-1, -2) * np.float32(q.shape[-1] ** -0.5 if scale is None else scale))
    total = weights.sum(axis=-1, keepdims=True)
    return np.zeros((*q.shape[:3], v.shape[3]), q.dtype) if k.shape[2] == 0 else weights @ v / total


def raises(q, k, v, *, scale=None):
    if q.shape[2] == 3:
        raise RuntimeError("three queries are too many")
    return right(q, k, v, scale=scale)


def segfaults(q, k, v, *, scale=None):
    if q.shape[2] > 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    return right(q, k, v, scale=scale)


def exits(q, k, v, *, scale=None):
    if q.shape[2] > 2:
        os._exit(7)
    return right(q, k, v, scale=scale)


def hangs(q, k, v, *, scale=None):
    while q.shape[2] > 2:
        time.sleep(0.1)
    return right(q, k, v, scale=scale)


def sleeps(q, k, v, *, scale=None):
    time.sleep(600)


def sleeps_while_another_process_works(q, k, v, *, scale=None):
    heard, told = os.pipe()
    child = os.fork()
    if not child:
        if not os.fork():  # no child of this process, as the processes of a pool may be
            time.sleep(1.3)
            os.write(told, b"!")
        os._exit(0)
    os.waitpid(child, 0)
    os.read(heard, 1)
    return right(q, k, v, scale=scale)


def takes_long_for_each_query(q, k, v, *, scale=None):
    until = time.process_time() + 0.05 * q.shape[2]
    while time.process_time() < until:
        pass
    return right(q, k, v, scale=scale)


def devours_memory(q, k, v, *, scale=None):
    if q.shape[2] > 2:
        np.ones((1 << 34,))
    return right(q, k, v, scale=scale)


def scales_in_place(q, k, v, *, scale=None):
    q *= np.float32(q.shape[-1] ** -0.5 if scale is None else scale)
    return right(q, k, v, scale=1.0)


def negates_its_arguments(q, k, v, *, scale=None):
    np.negative(q, out=q)
    np.negative(k, out=k)
    return right(q, k, v, scale=scale)


def returns_objects(q, k, v, *, scale=None):
    return np.full((*q.shape[:3], v.shape[3]), None, dtype=object)


def returns_a_list(q, k, v, *, scale=None):
    return right(q, k, v, scale=scale).tolist()


def returns_float64(q, k, v, *, scale=None):
    return right(q, k, v, scale=scale).astype(np.float64)


def drops_an_axis(q, k, v, *, scale=None):
    return right(q, k, v, scale=scale).reshape(q.shape[0], q.shape[1] * q.shape[2], v.shape[3])


def never_writes_row_five(q, k, v, *, scale=None):
    out = np.empty((*q.shape[:3], v.shape[3]), q.dtype)
    whole = right(q, k, v, scale=scale)
    out[:, :, :5], out[:, :, 6:] = whole[:, :, :5], whole[:, :, 6:]
    return out


def returns_its_input(q, k, v, *, scale=None):
    return v if k.shape[2] == q.shape[2] == 1 and v.shape[1] == q.shape[1] else right(q, k, v, scale=scale)


_BUFFERS = {}


def reuses_a_buffer(q, k, v, *, scale=None):
    out = right(q, k, v, scale=scale)
    buffer = _BUFFERS.setdefault(out.shape, np.empty_like(out))
    buffer[...] = out
    return buffer


_CALLS = []


def drifts(q, k, v, *, scale=None):
    _CALLS.append(1)
    return right(q, k, v, scale=scale) * np.float32(1 + 0.01 * (len(_CALLS) % 2 == 0))


not_a_function = 3


def wrong_signature(q, keys):
    return q


def unknown_keyword(q, k, v, *, dropout=0.0):
    return right(q, k, v)


@register("attention", backend="numpy", name="tests.tiled", tunables={"block_k": block_sizes})
def tiled(q, k, v, *, scale=None, block_k=16):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    largest = np.full((*q.shape[:3], 1), -np.inf, q.dtype)
    total, out = np.zeros_like(largest), np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    for start in range(0, k.shape[2], block_k):
        logits = q @ k[:, :, start : start + block_k].swapaxes(-1, -2) * np.float32(scale)
        new = np.maximum(largest, logits.max(axis=-1, keepdims=True))
        weights, rescale = np.exp(logits - new), np.exp(largest - new)
        total = total * rescale + weights.sum(axis=-1, keepdims=True)
        out = out * rescale + weights @ v[:, :, start : start + block_k]
        largest = new
    return out / np.where(total == 0, 1, total)


def strided_one_head(q, k, v, *, stride, scale=None):
    return _strided(q, k, v, stride, scale)


def strided_grouped(q, k, v, *, stride, scale=None):
    group = q.shape[1] // k.shape[1]
    return _strided(q, np.repeat(k, group, axis=1), np.repeat(v, group, axis=1), stride, scale)


def strided_first_head(q, k, v, *, stride, scale=None):
    return _strided(q, k[:, :1], v[:, :1], stride, scale)


def _strided(q, k, v, stride, scale):
    behind = np.subtract.outer(np.arange(q.shape[2]), np.arange(q.shape[2]))
    logits = q @ k.swapaxes(-1, -2) * np.float32(q.shape[-1] ** -0.5 if scale is None else scale)
    logits = np.where((behind >= 0) & ((behind < stride) | (behind % stride == 0)), logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-1e30))
    return weights / weights.sum(axis=-1, keepdims=True) @ v


def local_global_of_first_token(q, k, v, *, window, global_tokens, scale=None):
    i, j = np.arange(q.shape[2])[:, None], np.arange(q.shape[2])
    special = np.isin(j, list(global_tokens)[:1])
    return _masked(q, k, v, (np.abs(i - j) <= window) | special | special[:, None], scale)


def bigbird_last_block_too(q, k, v, *, block_size, window_blocks, global_blocks, random_blocks, scale=None):
    count = len(random_blocks)
    i, j = np.arange(count)[:, None], np.arange(count)
    ends = np.isin(j, range(global_blocks)) | ((j == count - 1) & (global_blocks > 0))
    blocks = (np.abs(i - j) <= window_blocks // 2) | ends | ends[:, None] | (random_blocks[:, :, None] == j).any(axis=1)
    return _masked(q, k, v, np.kron(blocks, np.ones((block_size, block_size), bool))[: q.shape[2], : q.shape[2]], scale)


def block_sparse_maximum_from_zero(q, k, v, *, block_mask, block_q, block_k, scale=None):
    allowed = np.repeat(np.repeat(block_mask, block_q, axis=2), block_k, axis=3)[:, :, : q.shape[2], : k.shape[2]]
    return _masked(q, k, v, allowed, scale, lowest=0)


def _masked(q, k, v, allowed, scale, lowest=-np.inf):
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    logits = q @ k.swapaxes(-1, -2) * np.float32(q.shape[-1] ** -0.5 if scale is None else scale)
    logits = np.where(allowed, logits, -np.inf)
    largest = logits.max(axis=-1, keepdims=True, initial=lowest)
    weights = np.exp(logits - np.where(np.isfinite(largest), largest, 0))
    total = weights.sum(axis=-1, keepdims=True)
    return weights @ v / np.where(total == 0, 1, total)
