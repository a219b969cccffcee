import numpy as np

TILE = 32


def softmax(logits, allowed):
    logits = np.where(allowed, logits, -np.inf)
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.where(allowed, np.exp(logits - np.where(np.isfinite(largest), largest, 0)), 0)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total == 0, 1, total)


def kernel(q, k, v, gates, *, compress_block, compress_stride, select_block, select_count, window, scale=None):
    stored = q.dtype
    batch, heads, length, width = q.shape
    groups = k.shape[1]
    split = (batch, groups, heads // groups, length)
    q, k, v, gates = (x.astype(np.float32) for x in (q, k, v, gates))
    q, gates = q.reshape(*split, width), gates.reshape(*split, 3)
    scale = np.float32(width**-0.5 if scale is None else scale)
    position = np.arange(length)
    starts = np.arange(0, max(length - compress_block + 1, 0), compress_stride)
    rows = starts[:, None] + np.arange(compress_block)
    keys, values = k[:, :, rows].mean(axis=3), v[:, :, rows].mean(axis=3)
    weights = softmax(np.einsum("bgrld,bgnd->bgrln", q, keys) * scale, starts + compress_block - 1 <= position[:, None])
    out = gates[..., :1] * np.einsum("bgrln,bgne->bgrle", weights, values)

    blocks = np.arange(-(-length // select_block)) * select_block
    ends = np.minimum(starts[:, None] + compress_block, blocks + select_block)
    shared = np.maximum(ends - np.maximum(starts[:, None], blocks), 0) // compress_stride
    importance = np.where(blocks <= position[:, None], (weights @ shared.astype(np.float32)).sum(axis=2), -1)
    best = np.argsort(-importance, axis=-1, kind="stable")[..., :select_count]
    chosen = np.zeros(importance.shape, bool)
    np.put_along_axis(chosen, best, True, axis=-1)
    logits = np.einsum("bgrld,bgsd->bgrls", q, k) * scale
    earlier = position <= position[:, None]
    selected = softmax(logits, (chosen[..., position // select_block] & earlier)[:, :, None])
    out = out + gates[..., 1:2] * np.einsum("bgrls,bgse->bgrle", selected, v)

    first = position[:, None] - window + 1
    first = np.where(window > TILE, first // TILE * TILE, first)
    out = out + gates[..., 2:] * np.einsum("bgrls,bgse->bgrle", softmax(logits, (position >= first) & earlier), v)
    return out.reshape(batch, heads, length, v.shape[3]).astype(stored)
