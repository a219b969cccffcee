"""Latent attention, a head and a sequence at a time, keys expanded and values absorbed."""

import numpy as np


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, causal=False, scale=None):
    (batch, heads, queries, width), keys = q_nope.shape, c_kv.shape[1]
    scale = np.float32((width + q_rope.shape[3]) ** -0.5 if scale is None else scale)
    out = np.zeros((batch, heads, queries, w_uv.shape[2]), q_nope.dtype)
    for b, h in np.ndindex(batch, heads):
        latent = c_kv[b].astype(np.float32)
        key = np.hstack([latent @ w_uk[h].astype(np.float32), k_rope[b].astype(np.float32)])
        query = np.hstack([q_nope[b, h].astype(np.float32), q_rope[b, h].astype(np.float32)])
        for i in range(queries):
            seen = min(max(i + keys - queries + 1, 0), keys) if causal else keys
            if seen:
                logits = key[:seen] @ query[i] * scale
                weights = np.exp(logits - logits.max())
                out[b, h, i] = weights / weights.sum() @ latent[:seen] @ w_uv[h].astype(np.float32)
    return out
