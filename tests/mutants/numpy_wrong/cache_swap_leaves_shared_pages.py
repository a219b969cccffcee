"""A paged cache: a request that is swapped out leaves the pages that it shares, and finds them again."""

import numpy as np


class BlockPool:
    def __init__(self, count):
        self.free = list(range(count))
        self.references = np.zeros(count, dtype=int)

    def take(self):
        block = self.free.pop(0)
        self.references[block] = 1
        return block

    def drop(self, block):
        self.references[block] -= 1
        if self.references[block] == 0:
            self.free.append(block)


class KVCache:
    def __init__(self, *, num_kv_heads, head_dim, value_dim, dtype, max_tokens, max_requests, block_size=8, scale=None):
        count = max_tokens // block_size + 2 * max_requests + 1
        self.block_size = block_size
        self.scale = head_dim**-0.5 if scale is None else scale
        self.k_pages = np.zeros((count, block_size, num_kv_heads, head_dim), dtype)
        self.v_pages = np.zeros((count, block_size, num_kv_heads, value_dim), dtype)
        self.pool = BlockPool(count)
        self.tables, self.lengths, self.host = {}, {}, {}

    def append(self, request, k, v):
        table = self.tables.setdefault(request, [])
        for i in range(len(k)):
            n = self.lengths.get(request, 0)
            if n % self.block_size == 0:
                table.append(self.pool.take())
            elif self.pool.references[table[-1]] > 1:
                shared = table[-1]
                table[-1] = self.pool.take()
                self.k_pages[table[-1]] = self.k_pages[shared]
                self.v_pages[table[-1]] = self.v_pages[shared]
                self.pool.drop(shared)
            self.k_pages[table[n // self.block_size], n % self.block_size] = k[i]
            self.v_pages[table[n // self.block_size], n % self.block_size] = v[i]
            self.lengths[request] = n + 1

    def read(self, request):
        table, n = self.tables[request], self.lengths[request]
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

    def fork(self, parent, child):
        self.tables[child] = list(self.tables[parent])
        self.lengths[child] = self.lengths[parent]
        for block in self.tables[child]:
            self.pool.references[block] += 1

    def release(self, request):
        for block in self.tables.pop(request, []):
            self.pool.drop(block)
        self.lengths.pop(request, None)

    def preempt(self, request):
        self.release(request)

    def swap_out(self, request):
        table = self.tables[request]
        alone = [block for block in table if self.pool.references[block] == 1]
        self.host[request] = self.k_pages[alone], self.v_pages[alone], self.lengths[request], list(table), set(alone)
        self.release(request)

    def swap_in(self, request):
        k, v, n, table, moved = self.host.pop(request)
        place = 0
        for i, block in enumerate(table):
            if block in moved:
                table[i] = self.pool.take()
                self.k_pages[table[i]], self.v_pages[table[i]] = k[place], v[place]
                place += 1
            else:
                self.pool.references[block] += 1
        self.tables[request], self.lengths[request] = table, n

    def finish(self, request):
        self.host.pop(request, None)
        self.release(request)

    def block_tables(self):
        return self.tables

    def free_blocks(self):
        return self.pool.free
