"""Lists of the chunks that came, joined when they are read."""

import numpy as np


class KVCache:
    def __init__(self, *, head_dim, scale=None):
        self.scale = head_dim**-0.5 if scale is None else scale
        self.chunks, self.host = {}, {}

    def append(self, request, k, v):
        self.chunks.setdefault(request, []).append((k, v))

    def attend(self, queries):
        out = {}
        for request, q in queries.items():
            k, v = (np.concatenate(parts) for parts in zip(*self.chunks[request], strict=True))
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
        self.chunks[child] = list(self.chunks[parent])

    def preempt(self, request):
        del self.chunks[request]

    def swap_out(self, request):
        self.host[request] = self.chunks.pop(request)

    def swap_in(self, request):
        self.chunks[request] = self.host.pop(request)

    def finish(self, request):
        self.host.pop(request, None)
        self.chunks.pop(request, None)
