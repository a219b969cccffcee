"""Kernels of paged attention for the tests: one right, and some that let what belongs to others leak."""

import numpy as np


def _gathered(pages, table, contexts):
    blocks, size, heads, width = pages.shape
    return pages[np.maximum(table, 0)].reshape(len(table), table.shape[1] * size, heads, width)


def _softmax(logits, inside):
    scores = np.where(inside[:, None, None], logits, -np.inf)
    highest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    with np.errstate(all="ignore"):
        weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total == 0, 1.0, total)


def _attention(q, k_pages, v_pages, block_table, context_lens, clear):
    (batch, heads, width), groups = q.shape, k_pages.shape[2]
    keys, values = (_gathered(pages, block_table, context_lens).astype(np.float32) for pages in (k_pages, v_pages))
    inside = np.arange(keys.shape[1]) < context_lens[:, None]
    values = clear(values, inside)
    logits = np.einsum("bgrd,bngd->bgrn", q.reshape(batch, groups, heads // groups, width).astype(np.float32), keys) * width**-0.5
    out = np.einsum("bgrn,bnge->bgre", _softmax(logits, inside), values)
    return out.reshape(batch, heads, values.shape[3]).astype(q.dtype)


def right(q, k_pages, v_pages, block_table, context_lens):
    return _attention(q, k_pages, v_pages, block_table, context_lens, lambda x, inside: np.where(inside[..., None, None], x, 0))


def leaks(q, k_pages, v_pages, block_table, context_lens):
    """0 * NaN."""
    return _attention(q, k_pages, v_pages, block_table, context_lens, lambda x, inside: x)


def hides_nan(q, k_pages, v_pages, block_table, context_lens):
    """Not NaN, but huge numbers leak too, where a weight is only nearly 0: here it is 0, so that this one is right."""
    return _attention(q, k_pages, v_pages, block_table, context_lens, lambda x, inside: np.nan_to_num(x))


def one_too_many(q, k_pages, v_pages, block_table, context_lens):
    """Reads one position beyond each context that leaves room for one."""
    longest = block_table.shape[1] * k_pages.shape[1]
    return right(q, k_pages, v_pages, block_table, np.minimum(context_lens + 1, longest))
