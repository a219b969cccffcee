"""Rows in two arrays; a request has the row of its number."""

import numpy as np


class KVCache:
    def __init__(self, *, num_kv_heads, head_dim, value_dim, dtype, max_tokens, max_requests, scale=None):
        self.scale = head_dim**-0.5 if scale is None else scale
        self.rows = max_requests
        self.k = np.zeros((max_requests, max_tokens, num_kv_heads, head_dim), dtype)
        self.v = np.zeros((max_requests, max_tokens, num_kv_heads, value_dim), dtype)
        self.lengths = np.zeros(max_requests, dtype=int)

    def append(self, request, k, v):
        row = request % self.rows
        start = self.lengths[row]
        self.k[row, start : start + len(k)] = k
        self.v[row, start : start + len(k)] = v
        self.lengths[row] += len(k)

    def attend(self, queries):
        out = {}
        for request, q in queries.items():
            n = self.lengths[request % self.rows]
            k, v = self.k[request % self.rows, :n], self.v[request % self.rows, :n]
            group = q.shape[1] // k.shape[1]
            k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
            wide = np.float64 if q.dtype == np.float64 else np.float32
            s = np.einsum("nhd,mhd->hnm", q.astype(wide), k.astype(wide)) * wide(self.scale)
            ahead = np.arange(len(k)) > np.arange(len(k) - len(q), len(k))[:, None]
            s = np.where(ahead, -np.inf, s)
            p = np.exp(s - s.max(axis=-1, keepdims=True))
            out[request] = np.einsum("hnm,mhe->nhe", p / p.sum(axis=-1, keepdims=True), v.astype(wide)).astype(q.dtype)
        return out

    def fork(self, parent, child):
        parent, child = parent % self.rows, child % self.rows
        self.k[child], self.v[child], self.lengths[child] = self.k[parent], self.v[parent], self.lengths[parent]

    def preempt(self, request):
        self.finish(request)

    def finish(self, request):
        self.lengths[request % self.rows] = 0
