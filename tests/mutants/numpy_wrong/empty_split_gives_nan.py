"""Flash-decoding with masks and windows: parts are combined by the logarithms of their denominators."""

import math

import numpy as np


def part_of(queries, keys, values, allowed):
    scores = np.where(allowed, queries @ keys.swapaxes(2, 3), -np.inf)
    peak = scores.max(-1, keepdims=True)
    safe = np.where(np.isneginf(peak), 0, peak)
    weights = np.exp(scores - safe)
    total = weights.sum(-1, keepdims=True)
    seen = total > 0
    total = np.where(seen, total, 1)
    return weights @ values / total, np.where(seen, safe + np.log(total), -np.inf)


def combine(out, lse, other_out, other_lse):
    peak = np.maximum(lse, other_lse)
    share, other_share = np.exp(lse - peak), np.exp(other_lse - peak)
    total = share + other_share
    return (out * share + other_out * other_share) / total, peak + np.log(total)


def kernel(q, k, v, *, mask=None, causal=False, scale=None, num_splits=2):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & np.tri(q_len, k_len, k_len - q_len, dtype=bool)
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    size = max(1, -(-k_len // num_splits))
    parts = []
    for begin in range(0, k_len, size):
        some = slice(begin, begin + size)
        parts.append(part_of(queries, keys[:, :, some], values[:, :, some], allowed[..., some]))
    if not parts:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    out, lse = parts[0]
    for other in parts[1:]:
        out, lse = combine(out, lse, *other)
    return out.astype(q.dtype)
