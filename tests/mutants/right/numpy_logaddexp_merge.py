"""A running output that is always normalised; tiles join it in the log domain, through logaddexp of float64 log-sums."""

import numpy as np


def _tile_attention(logits, values):
    highest = logits.max(axis=-1, keepdims=True)
    shift = np.where(np.isneginf(highest), 0, highest)
    weights = np.exp(logits - shift)
    total = weights.sum(axis=-1, keepdims=True)
    safe = np.where(total == 0, 1, total)
    lse = np.where(total == 0, -np.inf, shift.astype(np.float64) + np.log(safe.astype(np.float64)))
    return weights @ values / safe, lse


def kernel(q, k, v, *, mask=None, causal=False, softcap=None, scale=None, sinks=None, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    queries, keys, values = (x.astype(np.float32) for x in (q, k, v))
    keys, values = np.repeat(keys, group, axis=1), np.repeat(values, group, axis=1)
    visible = np.tri(q_len, k_len, k_len - q_len, dtype=bool) if causal else np.ones((q_len, k_len), dtype=bool)
    visible = np.broadcast_to(visible if mask is None else visible & mask, (batch, heads, q_len, k_len))

    out = np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float32)
    lse = np.full((batch, heads, q_len, 1), -np.inf)
    if sinks is not None:
        lse = lse + 0.0
        lse[:] = np.asarray(sinks, dtype=np.float64)[:, None, None]
    for start in range(0, k_len, block_k):
        tile = slice(start, start + block_k)
        logits = queries @ keys[:, :, tile].swapaxes(-1, -2) * scale
        if softcap is not None:
            logits = np.tanh(logits / softcap) * softcap
        tile_out, tile_lse = _tile_attention(np.where(visible[..., tile], logits, -np.inf), values[:, :, tile])
        joint = np.logaddexp(lse, tile_lse)
        reference = np.where(np.isneginf(joint), 0, joint)
        kept, joining = np.exp(lse - reference), np.exp(tile_lse - reference)
        out = out * kept.astype(np.float32) + tile_out * joining.astype(np.float32)
        lse = joint
    return out.astype(q.dtype)
