"""Pages that a sliding window has left are given back; their places in the block table stay as -1."""

import numpy as np


class KVCache:
    def __init__(
        self, *, num_kv_heads, head_dim, value_dim, dtype, max_tokens, max_requests, block_size=4, scale=None, sliding_window=None
    ):
        count = max_tokens // block_size + 2 * max_requests + 1
        self.block_size, self.window = block_size, sliding_window
        self.scale = head_dim**-0.5 if scale is None else scale
        self.k_pages = np.zeros((count, block_size, num_kv_heads, head_dim), dtype)
        self.v_pages = np.zeros((count, block_size, num_kv_heads, value_dim), dtype)
        self.free, self.owners = list(range(count)), np.zeros(count, dtype=int)
        self.tables, self.lengths, self.host = {}, {}, {}

    def take(self):
        block = self.free.pop(0)
        self.owners[block] = 1
        return block

    def drop(self, block):
        self.owners[block] -= 1
        if self.owners[block] == 0:
            self.free.append(block)

    def append(self, request, k, v):
        table = self.tables.setdefault(request, [])
        first = self.lengths.get(request, 0)
        self.evict(table, first)
        for i in range(len(k)):
            page, slot = divmod(first + i, self.block_size)
            if slot == 0:
                table.append(self.take())
            elif self.owners[table[page]] > 1:
                shared, table[page] = table[page], self.take()
                self.k_pages[table[page]] = self.k_pages[shared]
                self.v_pages[table[page]] = self.v_pages[shared]
                self.drop(shared)
            self.k_pages[table[page], slot] = k[i]
            self.v_pages[table[page], slot] = v[i]
        self.lengths[request] = first + len(k)

    def evict(self, table, position):
        """Give back pages that no query from a position on reads."""
        if self.window is None:
            return
        for page in range(max(position - self.window + 1, 0) // self.block_size):
            if table[page] >= 0:
                if self.owners[table[page]] == 1:
                    self.drop(table[page])
                table[page] = -1

    def attend(self, queries):
        out = {}
        for request, q in queries.items():
            n, table = self.lengths[request], self.tables[request]
            start = next(page for page, block in enumerate(table) if block >= 0)
            k = self.k_pages[table[start:]].reshape(-1, *self.k_pages.shape[2:])[: n - start * self.block_size]
            v = self.v_pages[table[start:]].reshape(-1, *self.v_pages.shape[2:])[: n - start * self.block_size]
            group = q.shape[1] // k.shape[1]
            k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
            wide = np.float64 if q.dtype == np.float64 else np.float32
            s = np.einsum("nhd,mhd->hnm", q.astype(wide), k.astype(wide)) * wide(self.scale)
            distance = np.arange(n - len(q), n)[:, None] - np.arange(start * self.block_size, n)
            hidden = distance < 0 if self.window is None else (distance < 0) | (distance >= self.window)
            s = np.where(hidden, -np.inf, s)
            p = np.exp(s - s.max(axis=-1, keepdims=True))
            out[request] = np.einsum("hnm,mhe->nhe", p / p.sum(axis=-1, keepdims=True), v.astype(wide)).astype(q.dtype)
        return out

    def fork(self, parent, child):
        self.tables[child], self.lengths[child] = list(self.tables[parent]), self.lengths[parent]
        for block in self.tables[child]:
            if block >= 0:
                self.owners[block] += 1

    def release(self, request):
        for block in self.tables.pop(request, []):
            if block >= 0:
                self.drop(block)
        self.lengths.pop(request, None)

    def preempt(self, request):
        self.release(request)

    def swap_out(self, request):
        kept = [(page, block) for page, block in enumerate(self.tables[request]) if block >= 0]
        pages = [(page, self.k_pages[block].copy(), self.v_pages[block].copy()) for page, block in kept]
        self.host[request] = pages, len(self.tables[request]), self.lengths[request]
        self.release(request)

    def swap_in(self, request):
        pages, count, n = self.host.pop(request)
        table = [-1] * count
        for page, k, v in pages:
            table[page] = self.take()
            self.k_pages[table[page]], self.v_pages[table[page]] = k, v
        self.tables[request], self.lengths[request] = table, n

    def finish(self, request):
        self.host.pop(request, None)
        self.release(request)

    def block_tables(self):
        return self.tables

    def free_blocks(self):
        return self.free
