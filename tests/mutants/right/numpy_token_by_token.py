"""Online softmax that meets one key at a time, as a decoder that streams its cache would."""

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else float(scale)
    # (B, Hkv, group, Lq, ...): the query heads of one key head sit together, so one key serves them all
    queries = q.reshape(batch, kv_heads, group, q_len, width).astype(np.float32)
    if mask is not None:
        mask = np.broadcast_to(mask, (batch, heads, q_len, k_len)).reshape(batch, kv_heads, group, q_len, k_len)
    highest = np.full((batch, kv_heads, group, q_len), -np.inf, dtype=np.float32)
    total = np.zeros_like(highest)
    weighted = np.zeros((batch, kv_heads, group, q_len, v.shape[3]), dtype=np.float32)
    positions = np.arange(q_len) + k_len - q_len

    for j in range(k_len):
        key = k[:, :, j].astype(np.float32)[:, :, None, :, None]
        value = v[:, :, j].astype(np.float32)[:, :, None, None, :]
        logit = np.matmul(queries, key)[..., 0] * scale
        if causal:
            logit = np.where(positions >= j, logit, -np.inf)
        if mask is not None:
            logit = np.where(mask[..., j], logit, -np.inf)
        new_highest = np.maximum(highest, logit)
        shift = np.where(np.isneginf(new_highest), 0, new_highest)
        rescale, weight = np.exp(highest - shift), np.exp(logit - shift)
        total = total * rescale + weight
        weighted = weighted * rescale[..., None] + weight[..., None] * value
        highest = new_highest
    out = weighted / np.where(total == 0, 1, total)[..., None]
    return out.reshape(batch, heads, q_len, v.shape[3]).astype(q.dtype)
