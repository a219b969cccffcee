"""The softmax is shifted by the Cauchy-Schwarz bound |q| max|k| instead of the row maximum, in float64.

Every logit lies within [-bound, bound], so no weight is below exp(-2 bound): where the bound is at most 300 nothing can
underflow in float64. A row with a larger bound falls back to its true maximum. Hidden keys take no part in the bound.
"""

import numpy as np

LARGEST_SAFE_BOUND = 300.0


def kernel(q, k, v, *, mask=None, causal=False, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    queries = q.astype(np.float64)
    keys = np.repeat(k.astype(np.float64), group, axis=1)
    values = np.repeat(v.astype(np.float64), group, axis=1)
    allowed = np.tri(q_len, k_len, k_len - q_len, dtype=bool) if causal else np.ones((q_len, k_len), dtype=bool)
    if mask is not None:
        allowed = allowed & mask
    allowed = np.broadcast_to(allowed, (batch, heads, q_len, k_len))

    key_norms = np.linalg.norm(keys, axis=-1)[:, :, None, :]
    longest_key = np.where(allowed, key_norms, 0).max(axis=-1, keepdims=True, initial=0)
    bound = abs(scale) * np.linalg.norm(queries, axis=-1, keepdims=True) * longest_key
    logits = queries @ keys.swapaxes(-1, -2) * scale
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
        bound = np.minimum(bound, softcap)
    logits = np.where(allowed, logits, -np.inf)
    true_maximum = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    true_maximum = np.where(np.isneginf(true_maximum), 0, true_maximum)
    weights = np.exp(logits - np.where(bound <= LARGEST_SAFE_BOUND, bound, true_maximum))
    total = weights.sum(axis=-1, keepdims=True)
    return (weights @ values / np.where(total == 0, 1, total)).astype(q.dtype)
