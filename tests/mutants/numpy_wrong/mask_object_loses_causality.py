"""Attention with an object for everything that hides keys; half precision inputs take it along into the compute type."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Hiding:
    """What hides keys: an additive mask, and causality as a flag."""

    additive: np.ndarray | None = None
    causal: bool = False

    def to(self, dtype):
        return Hiding(None if self.additive is None else self.additive.astype(dtype))

    def apply(self, scores):
        q_len, k_len = scores.shape[-2:]
        if self.additive is not None:
            scores = scores + self.additive
        if self.causal:
            scores = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), scores, -np.inf)
        return scores


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    hiding = Hiding(None if mask is None else np.where(mask, 0.0, -np.inf).astype(q.dtype), causal)
    if q.dtype != np.float32:
        hiding = hiding.to(np.float32)
    group = q.shape[1] // k.shape[1]
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = hiding.apply(q.astype(np.float32) @ keys.swapaxes(2, 3) * np.float32(scale))
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
