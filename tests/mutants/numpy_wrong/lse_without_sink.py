"""Attention with sinks: the sink is merged after the loop as if it were a further split without values."""

import math

import numpy as np


def attention_with_lse(q, k, v, *, causal=False, softcap=None, scale=None, sinks=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = q.astype(np.float32) @ keys.swapaxes(2, 3) * scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    if causal:
        scores = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    safe = np.where(np.isneginf(peak), 0, peak)
    weights = np.exp(scores - safe)
    total = weights.sum(-1, keepdims=True)
    seen = total > 0
    total = np.where(seen, total, 1)
    out = weights @ values / total
    lse = np.where(seen, safe + np.log(total), -np.inf)
    if sinks is not None:
        sink = np.broadcast_to(sinks.astype(np.float32)[:, None, None], lse.shape)
        joint = np.logaddexp(lse, sink)
        out = out * np.exp(lse - joint)
    return out.astype(q.dtype), lse[..., 0].astype(np.float32)
