"""Two sweeps over the key tiles: the first finds the row maxima, the second sums; nothing is ever rescaled."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None, block_k=40):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    queries = q.astype(np.float32) * scale
    positions = np.arange(q_len)[:, None] + k_len - q_len
    full = (batch, heads, q_len, k_len)
    mask = None if mask is None else np.broadcast_to(mask, full)
    bias = None if bias is None else np.broadcast_to(np.asarray(bias, dtype=np.float32), full)
    tiles = [slice(start, min(start + block_k, k_len)) for start in range(0, k_len, block_k)]

    def tile_logits(tile):
        keys = np.repeat(k[:, :, tile].astype(np.float32), group, axis=1)
        logits = queries @ keys.swapaxes(-1, -2)
        if softcap is not None:
            logits = softcap * np.tanh(logits / softcap)
        if bias is not None:
            logits = logits + bias[..., tile]
        offset = np.arange(tile.start, tile.stop) - positions
        if causal:
            logits = np.where(offset > 0, -np.inf, logits)
        if window is not None and window[0] is not None:
            logits = np.where(offset < -window[0], -np.inf, logits)
        if window is not None and window[1] is not None:
            logits = np.where(offset > window[1], -np.inf, logits)
        return logits if mask is None else np.where(mask[..., tile], logits, -np.inf)

    highest = np.full((batch, heads, q_len, 1), -np.inf, dtype=np.float32)
    if sinks is not None:
        highest[:] = np.asarray(sinks, dtype=np.float32)[:, None, None]
    for tile in tiles:
        highest = np.maximum(highest, tile_logits(tile).max(axis=-1, keepdims=True))
    shift = np.where(np.isneginf(highest), 0, highest)

    total = np.zeros_like(shift) if sinks is None else np.exp(np.asarray(sinks, dtype=np.float32)[:, None, None] - shift)
    weighted = np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float32)
    for tile in tiles:
        weights = np.exp(tile_logits(tile) - shift)
        total = total + weights.sum(axis=-1, keepdims=True)
        weighted = weighted + weights @ np.repeat(v[:, :, tile].astype(np.float32), group, axis=1)
    return (weighted / np.where(total == 0, 1, total)).astype(q.dtype)
