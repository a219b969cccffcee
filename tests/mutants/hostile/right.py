"""Attention as it should be: what the hostile kernels around it compute when they behave."""

import numpy as np


def attention(q, k, v, scale=None):
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    logits = (q @ k.swapaxes(-1, -2)) * np.float32(q.shape[-1] ** -0.5 if scale is None else scale)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=np.float32(-3e38)))
    total = weights.sum(axis=-1, keepdims=True)
    return (weights @ v) / np.where(total == 0, np.float32(1), total)


def zeros(q, v):
    return np.zeros((*q.shape[:3], v.shape[3]), q.dtype)


def torch_attention(q, k, v, scale=None):
    import torch

    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=True)
