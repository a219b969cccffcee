"""Online softmax over key tiles that are visited from the last to the first."""

import numpy as np


def _allowed_keys(q_len, k_len, mask, causal, window):
    rows = np.arange(q_len)[:, None] + (k_len - q_len)
    columns = np.arange(k_len)[None, :]
    allowed = np.ones((q_len, k_len), dtype=bool)
    if causal:
        allowed &= columns <= rows
    if window is not None:
        left, right = window
        if left is not None:
            allowed &= columns - rows >= -left
        if right is not None:
            allowed &= columns - rows <= right
    return allowed if mask is None else allowed & mask


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    full = (batch, heads, q_len, k_len)
    scale = width**-0.5 if scale is None else float(scale)
    queries = q.astype(np.float32)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    allowed = np.broadcast_to(_allowed_keys(q_len, k_len, mask, causal, window), full)
    if bias is not None:
        bias = np.broadcast_to(np.asarray(bias, dtype=np.float32), full)

    highest = np.full((batch, heads, q_len, 1), -np.inf, dtype=np.float32)
    total = np.zeros_like(highest)
    weighted = np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float32)
    for stop in range(k_len, 0, -block_k):
        tile = slice(max(stop - block_k, 0), stop)
        logits = queries @ keys[:, :, tile].swapaxes(-1, -2) * scale
        if softcap is not None:
            logits = softcap * np.tanh(logits / softcap)
        if bias is not None:
            logits = logits + bias[..., tile]
        logits = np.where(allowed[..., tile], logits, -np.inf)
        new_highest = np.maximum(highest, logits.max(axis=-1, keepdims=True))
        shift = np.where(np.isneginf(new_highest), 0, new_highest)
        weights = np.exp(logits - shift)
        rescale = np.exp(highest - shift)
        total = total * rescale + weights.sum(axis=-1, keepdims=True)
        weighted = weighted * rescale + weights @ values[:, :, tile]
        highest = new_highest
    if sinks is not None:
        sink = np.asarray(sinks, dtype=np.float32)[None, :, None, None]
        new_highest = np.maximum(highest, sink)
        shift = np.where(np.isneginf(new_highest), 0, new_highest)
        rescale = np.exp(highest - shift)
        total = total * rescale + np.exp(sink - shift)
        weighted = weighted * rescale
    return (weighted / np.where(total == 0, 1, total)).astype(q.dtype)
