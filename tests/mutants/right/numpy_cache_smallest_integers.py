"""Pages whose numbers lie in one table for all requests, in the smallest integers that can hold the number of the last page."""

import numpy as np


class KVCache:
    def __init__(self, *, num_kv_heads, head_dim, value_dim, dtype, max_tokens, max_requests, block_size=16, scale=None):
        count = -(-max_tokens // block_size) + max_requests
        self.block_size = block_size
        self.scale = head_dim**-0.5 if scale is None else scale
        self.k_pages = np.zeros((count, block_size, num_kv_heads, head_dim), dtype)
        self.v_pages = np.zeros((count, block_size, num_kv_heads, value_dim), dtype)
        self.table = np.zeros((max_requests, count), np.min_scalar_type(count - 1))
        self.lengths = np.zeros(max_requests, np.int64)
        self.free = list(range(count))
        self.rows, self.spare = {}, list(range(max_requests))

    def append(self, request, k, v):
        if request not in self.rows:
            self.rows[request] = self.spare.pop()
            self.lengths[self.rows[request]] = 0
        row = self.rows[request]
        for new_k, new_v in zip(k, v):
            block, offset = divmod(int(self.lengths[row]), self.block_size)
            if offset == 0:
                self.table[row, block] = self.free.pop(0)
            page = self.table[row, block]
            self.k_pages[page, offset] = new_k
            self.v_pages[page, offset] = new_v
            self.lengths[row] += 1

    def read(self, request):
        row = self.rows[request]
        n = self.lengths[row]
        table = self.table[row, : -(-n // self.block_size)]
        k = self.k_pages[table].reshape(-1, *self.k_pages.shape[2:])[:n]
        v = self.v_pages[table].reshape(-1, *self.v_pages.shape[2:])[:n]
        return k, v

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

    def preempt(self, request):
        self.finish(request)

    def finish(self, request):
        row = self.rows.pop(request, None)
        if row is not None:
            used = -(-self.lengths[row] // self.block_size)
            self.free = [*self.table[row, :used].tolist(), *self.free]
            self.spare.append(row)
