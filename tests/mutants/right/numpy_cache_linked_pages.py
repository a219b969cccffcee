"""Pages as a linked list: each knows the one before it, a request its last; a fork shares the chain and copies no page before it must."""

import numpy as np


class Page:
    def __init__(self, before, shape_k, shape_v, dtype):
        self.before, self.filled = before, 0
        self.k, self.v = np.full(shape_k, np.nan).astype(dtype), np.full(shape_v, np.nan).astype(dtype)


class KVCache:
    def __init__(self, *, num_kv_heads, head_dim, value_dim, dtype, block_size=3, scale=None):
        self.scale = head_dim**-0.5 if scale is None else scale
        self.new = lambda before: Page(before, (block_size, num_kv_heads, head_dim), (block_size, num_kv_heads, value_dim), dtype)
        self.size = block_size
        self.last = {}
        self.host = {}

    def append(self, request, k, v):
        last, filled = self.last.get(request, (None, self.size))
        for i in range(len(k)):
            if filled == self.size:
                last, filled = self.new(last), 0
            elif last.filled != filled:  # another request has written there
                own = self.new(last.before)
                own.k[:filled], own.v[:filled], own.filled = last.k[:filled], last.v[:filled], filled
                last = own
            last.k[filled], last.v[filled] = k[i], v[i]
            filled += 1
            last.filled = filled
        self.last[request] = last, filled

    def read(self, request):
        page, filled = self.last[request]
        keys, values = [page.k[:filled]], [page.v[:filled]]
        while page.before is not None:
            page = page.before
            keys.insert(0, page.k)
            values.insert(0, page.v)
        return np.concatenate(keys), np.concatenate(values)

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

    def fork(self, parent, child):
        self.last[child] = self.last[parent]

    def preempt(self, request):
        del self.last[request]

    def swap_out(self, request):
        self.host[request] = self.last.pop(request)

    def swap_in(self, request):
        self.last[request] = self.host.pop(request)

    def finish(self, request):
        self.host.pop(request, None)
        self.last.pop(request, None)
