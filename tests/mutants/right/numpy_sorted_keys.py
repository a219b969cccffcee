"""Keys are sorted by logit in every row and added in ascending order, the smallest weights first."""

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = v.astype(np.float32)
    logits = q.astype(np.float32) @ keys.transpose(0, 1, 3, 2) * scale
    if softcap is not None:
        logits = np.tanh(logits / softcap) * softcap
    if causal:
        logits = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), logits, -np.inf)
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    order = np.argsort(logits, axis=-1)
    logits = np.take_along_axis(logits, order, axis=-1)

    weighted = np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float32)
    total = np.zeros((batch, heads, q_len), dtype=np.float32)
    if k_len == 0:
        return weighted.astype(q.dtype)
    highest = logits[..., -1]
    weights = np.exp(logits - np.where(np.isneginf(highest), 0, highest)[..., None])
    batch_index = np.arange(batch)[:, None, None]
    head_index = (np.arange(heads) // group)[None, :, None]
    for rank in range(k_len):
        weight = weights[..., rank]
        total = total + weight
        weighted = weighted + weight[..., None] * values[batch_index, head_index, order[..., rank]]
    return (weighted / np.where(total == 0, 1, total)[..., None]).astype(q.dtype)
