"""SageAttention: smoothed keys, int8 or FP4 products."""

import ml_dtypes
import numpy as np


def int8(x, size):
    codes, scales = np.empty_like(x), np.empty((*x.shape[:3], 1), np.float32)
    for start in range(0, x.shape[2], size):
        rows = slice(start, start + size)
        scale = np.abs(x[:, :, rows]).max(axis=(2, 3), keepdims=True) / np.float32(127)
        scale = np.where(scale == 0, np.float32(1), scale)
        codes[:, :, rows], scales[:, :, rows] = np.rint(x[:, :, rows] / scale), scale
    return codes.astype(np.int16), scales


def fp4(x):
    width = x.shape[-1]
    padded = np.concatenate([x, np.zeros((*x.shape[:-1], -width % 16), np.float32)], axis=-1)
    blocks = padded.reshape(*x.shape[:-1], padded.shape[-1] // 16, 16)
    scale = (np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(6)).clip(0, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    ratio = np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale > 0).clip(-6, 6)
    return (ratio.astype(ml_dtypes.float4_e2m1fn).astype(np.float32) * scale).reshape(padded.shape)[..., :width]


def fp4_weights(weights):
    level = weights.max(axis=-1, keepdims=True)
    level = np.where(level == 0, np.float32(1), level) / np.float32(6 * 448)
    return fp4(weights / level) * level


def block_means(q, size):
    out = np.empty_like(q)
    for start in range(0, q.shape[2], size):
        out[:, :, start : start + size] = q[:, :, start : start + size].mean(axis=2, keepdims=True)
    return out


def kernel(q, k, v, *, format="int8", query_block=128, key_block=64, smooth_k=True, smooth_q=False, causal=False, scale=None):
    batch, heads, queries, width = q.shape
    groups, keys = k.shape[1:3]
    out = np.zeros((batch, heads, queries, v.shape[3]), q.dtype)
    if keys == 0 or queries == 0 or batch == 0:
        return out
    scale = np.float32(width**-0.5 if scale is None else scale)
    wide_q, wide_k, wide_v = (x.astype(np.float32) for x in (q, k, v))
    if smooth_k:
        wide_k = wide_k - wide_k.mean(axis=2, keepdims=True)
    owner = np.arange(heads) // (heads // groups)
    added = np.float32(0)
    if smooth_q:
        means = block_means(wide_q, query_block)
        added = means @ wide_k[:, owner].swapaxes(2, 3)
        wide_q = wide_q - means
    if format == "int8":
        (codes_q, scale_q), (codes_k, scale_k) = int8(wide_q, query_block), int8(wide_k, key_block)
        products = (codes_q @ codes_k[:, owner].swapaxes(2, 3)).astype(np.float32) * scale_q * scale_k[:, owner].swapaxes(2, 3)
    else:
        products = fp4(wide_q) @ fp4(wide_k)[:, owner].swapaxes(2, 3)
        wide_v = fp4(wide_v.swapaxes(2, 3)).swapaxes(2, 3)
    logits = (products + added) * scale
    if causal:
        logits = np.where(np.arange(keys) > np.arange(queries)[:, None] + keys - queries, -np.inf, logits)
    maximum = logits.max(axis=3, keepdims=True)
    weights = np.exp(logits - np.where(np.isneginf(maximum), 0, maximum))
    total = weights.sum(axis=3, keepdims=True)
    if format == "nvfp4":
        weights = np.concatenate([fp4_weights(weights[..., i : i + key_block]) for i in range(0, keys, key_block)], axis=3)
    return (weights @ wide_v[:, owner] / np.where(total == 0, 1, total)).astype(q.dtype)
