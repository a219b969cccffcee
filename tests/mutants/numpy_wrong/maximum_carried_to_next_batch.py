"""Persistent kernel: one worker walks over the batch and reuses its row statistics, which it resets for each sequence."""

import math

import numpy as np

BLOCK = 32


class Worker:
    """Row statistics that live as long as the worker."""

    def __init__(self, heads, rows, width):
        self.top = np.full((heads, rows, 1), -np.inf, np.float32)
        self.total = np.zeros((heads, rows, 1), np.float32)
        self.acc = np.zeros((heads, rows, width), np.float32)

    def reset(self):
        self.total[:] = 0
        self.acc[:] = 0

    def absorb(self, scores, values):
        new_top = np.maximum(self.top, scores.max(-1, keepdims=True))
        weights, decay = np.exp(scores - new_top), np.exp(self.top - new_top)
        self.total = self.total * decay + weights.sum(-1, keepdims=True)
        self.acc = self.acc * decay + weights @ values
        self.top = new_top


def kernel(q, k, v, *, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    worker = Worker(q_heads, q_len, v.shape[3])
    for b in range(batch):
        worker.reset()
        queries = q[b].astype(np.float32) * scale
        for start in range(0, k_len, BLOCK):
            keys = np.repeat(k[b, :, start : start + BLOCK].astype(np.float32), group, axis=0)
            values = np.repeat(v[b, :, start : start + BLOCK].astype(np.float32), group, axis=0)
            worker.absorb(queries @ keys.swapaxes(1, 2), values)
        out[b] = np.divide(worker.acc, worker.total, out=np.zeros_like(worker.acc), where=worker.total > 0)
    return out
