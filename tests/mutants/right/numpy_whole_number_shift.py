"""Base-two online softmax whose shift is the running maximum rounded up: every rescale is an exact power of two."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, softcap=None, scale=None, block_k=20):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    log2_e = math.log2(math.e)
    queries = q.astype(np.float32) * scale
    keys, values = np.repeat(k.astype(np.float32), group, axis=1), np.repeat(v.astype(np.float32), group, axis=1)
    allowed = np.tri(q_len, k_len, k_len - q_len, dtype=bool) if causal else np.ones((q_len, k_len), dtype=bool)
    allowed = np.broadcast_to(allowed if mask is None else allowed & mask, (batch, heads, q_len, k_len))

    shift = np.full((batch, heads, q_len, 1), -np.inf, dtype=np.float32)
    total = np.zeros_like(shift)
    weighted = np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float32)
    for start in range(0, k_len, block_k):
        tile = slice(start, start + block_k)
        logits = queries @ keys[:, :, tile].swapaxes(-1, -2)
        if softcap is not None:
            logits = softcap * np.tanh(logits / softcap)
        powers = np.where(allowed[..., tile], logits * log2_e, -np.inf)
        new_shift = np.maximum(shift, np.ceil(powers.max(axis=-1, keepdims=True)))
        usable = np.where(np.isneginf(new_shift), 0, new_shift)
        weights, rescale = np.exp2(powers - usable), np.exp2(shift - usable)
        total = total * rescale + weights.sum(axis=-1, keepdims=True)
        weighted = weighted * rescale + weights @ values[:, :, tile]
        shift = new_shift
    return (weighted / np.where(total == 0, 1, total)).astype(q.dtype)
