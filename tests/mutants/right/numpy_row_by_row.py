"""One query at a time, last query first, over exactly the slice of keys that its position allows: decoding run backwards."""

import numpy as np


def kernel(q, k, v, *, causal=False, window=None, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    scale = width**-0.5 if scale is None else float(scale)
    keys, values = k.astype(np.float32), v.astype(np.float32)
    left, right = (None, None) if window is None else window
    out = np.zeros((batch, heads, q_len, v.shape[3]), dtype=q.dtype)
    for row in reversed(range(q_len)):
        position = row + k_len - q_len
        start = 0 if left is None else max(position - left, 0)
        stop = k_len if right is None else min(position + right + 1, k_len)
        stop = min(stop, position + 1) if causal else stop
        if start >= stop:
            continue
        # the heads of a group are the rows of a small matrix: (B, Hkv, group, D) @ (B, Hkv, D, keys)
        query = q[:, :, row].astype(np.float32).reshape(batch, kv_heads, heads // kv_heads, width)
        logits = query @ keys[:, :, start:stop].swapaxes(-1, -2) * scale
        if softcap is not None:
            logits = softcap * np.tanh(logits / softcap)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        mixed = weights @ values[:, :, start:stop] / weights.sum(axis=-1, keepdims=True)
        out[:, :, row] = mixed.reshape(batch, heads, v.shape[3])
    return out
