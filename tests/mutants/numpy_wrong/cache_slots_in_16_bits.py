"""One long array of places; a request knows the place of each of its tokens."""

import numpy as np


class KVCache:
    def __init__(self, *, num_kv_heads, head_dim, value_dim, dtype, max_tokens, scale=None):
        self.scale = head_dim**-0.5 if scale is None else scale
        self.k = np.zeros((max_tokens, num_kv_heads, head_dim), dtype)
        self.v = np.zeros((max_tokens, num_kv_heads, value_dim), dtype)
        self.free = np.arange(max_tokens)
        self.slots = {}

    def append(self, request, k, v):
        taken, self.free = self.free[: len(k)], self.free[len(k) :]
        self.k[taken], self.v[taken] = k, v
        old = self.slots.get(request, np.zeros(0, np.int16))
        self.slots[request] = np.concatenate([old, taken.astype(np.int16)])

    def read(self, request):
        return self.k[self.slots[request]], self.v[self.slots[request]]

    def attend(self, queries):
        out = {}
        for request, q in queries.items():
            k, v = self.read(request)
            group = q.shape[1] // k.shape[1]
            k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
            wide = np.float64 if q.dtype == np.float64 else np.float32
            s = np.einsum("nhd,mhd->hnm", q.astype(wide), k.astype(wide)) * wide(self.scale)
            ahead = np.arange(len(k)) > np.arange(len(k) - len(q), len(k))[:, None]
            s = np.where(ahead, -np.inf, s)
            p = np.exp(s - s.max(axis=-1, keepdims=True))
            out[request] = np.einsum("hnm,mhe->nhe", p / p.sum(axis=-1, keepdims=True), v.astype(wide)).astype(q.dtype)
        return out

    def finish(self, request):
        self.free = np.concatenate([self.slots.pop(request, np.zeros(0, np.int16)).astype(int), self.free])
