import numpy as np

COLUMNS = 256


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, causal=False, scale=None):
    stored = q_nope.dtype
    q_nope, q_rope, c_kv, k_rope, w_uk, w_uv = (x.astype(np.float32) for x in (q_nope, q_rope, c_kv, k_rope, w_uk, w_uv))
    queries, keys = q_nope.shape[2], c_kv.shape[1]
    scale = (q_nope.shape[3] + q_rope.shape[3]) ** -0.5 if scale is None else scale
    absorbed = q_nope @ np.swapaxes(w_uk, -1, -2)
    logits = absorbed @ np.swapaxes(c_kv, -1, -2)[:, None] + q_rope @ np.swapaxes(k_rope, -1, -2)[:, None]
    allowed = np.ones((queries, keys), bool)
    if causal:
        allowed = np.arange(keys) <= np.arange(queries)[:, None] + keys - queries
    logits = np.where(allowed, logits * np.float32(scale), -np.inf)
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.where(allowed, np.exp(logits - np.where(np.isfinite(largest), largest, 0)), 0)
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights / np.where(total == 0, 1, total)
    return (weights @ c_kv[:, None, :, :COLUMNS] @ w_uv[:, :COLUMNS]).astype(stored)
