"""One array for all requests, twice as large whenever it is full: a list of slots says whose token lies where; frees go to a heap."""

import heapq

import numpy as np


class KVCache:
    def __init__(self, *, head_dim, scale=None):
        self.scale = head_dim**-0.5 if scale is None else scale
        self.k = self.v = None
        self.free, self.slots, self.readers, self.host = [], {}, {}, {}

    def room(self, k, v):
        if not self.free:
            size = 1 if self.k is None else 2 * len(self.k)
            grown = [np.full((size, *x.shape[1:]), np.nan).astype(x.dtype) for x in (k, v)]
            first = 0
            if self.k is not None:
                first = len(self.k)
                grown[0][:first], grown[1][:first] = self.k, self.v
            self.k, self.v = grown
            self.free = list(range(first, size))
        return heapq.heappop(self.free)

    def append(self, request, k, v):
        slots = self.slots.setdefault(request, [])
        for i in range(len(k)):
            slot = self.room(k, v)
            self.k[slot], self.v[slot], self.readers[slot] = k[i], v[i], 1
            slots.append(slot)

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

    def fork(self, parent, child):
        self.slots[child] = list(self.slots[parent])
        for slot in self.slots[child]:
            self.readers[slot] += 1

    def preempt(self, request):
        for slot in self.slots.pop(request, ()):
            self.readers[slot] -= 1
            if self.readers[slot] == 0:
                heapq.heappush(self.free, slot)

    def swap_out(self, request):
        self.host[request] = self.read(request)
        self.preempt(request)

    def swap_in(self, request):
        self.append(request, *self.host.pop(request))

    def finish(self, request):
        self.host.pop(request, None)
        self.preempt(request)
