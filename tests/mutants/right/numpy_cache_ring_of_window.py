"""A ring of as many slots as the window, read before it is written: each chunk attends to what was kept and to itself."""

import numpy as np


class KVCache:
    def __init__(self, *, scale=None, sliding_window=None):
        self.scale, self.window = scale, sliding_window
        self.rings, self.recent, self.host = {}, {}, {}

    def append(self, request, k, v):
        if request in self.recent:
            self.keep(request)
        self.recent[request] = k.copy(), v.copy()

    def keep(self, request):
        """The chunk that came last goes into the ring."""
        k, v = self.recent.pop(request)
        if self.window is None:
            rows = self.rings.get(request, (k[:0], v[:0], 0))
            self.rings[request] = np.concatenate([rows[0], k]), np.concatenate([rows[1], v]), rows[2] + len(k)
            return
        if request not in self.rings:
            self.rings[request] = np.empty((self.window, *k.shape[1:]), k.dtype), np.empty((self.window, *v.shape[1:]), v.dtype), 0
        ring_k, ring_v, n = self.rings[request]
        last = np.arange(max(len(k) - self.window, 0), len(k))
        ring_k[(n + last) % self.window], ring_v[(n + last) % self.window] = k[last], v[last]
        self.rings[request] = ring_k, ring_v, n + len(k)

    def read(self, request):
        """Keys, values and the position of the first."""
        k, v = self.recent[request]
        if request not in self.rings:
            return k, v, 0
        ring_k, ring_v, n = self.rings[request]
        place = np.arange(n) if self.window is None else np.arange(max(n - self.window, 0), n) % self.window
        return np.concatenate([ring_k[place], k]), np.concatenate([ring_v[place], v]), n - len(place)

    def attend(self, queries):
        out = {}
        for request, q in queries.items():
            k, v, first = self.read(request)
            group = q.shape[1] // k.shape[1]
            wide = np.float64 if q.dtype == np.float64 else np.float32
            scale = q.shape[2] ** -0.5 if self.scale is None else self.scale
            grouped = q.astype(wide).reshape(len(q), k.shape[1], group, -1)
            s = np.einsum("ngrd,mgd->grnm", grouped, k.astype(wide)) * wide(scale)
            distance = np.arange(first + len(k) - len(q), first + len(k))[:, None] - np.arange(first, first + len(k))
            s = np.where((distance < 0) | (distance >= (self.window or np.inf)), -np.inf, s)
            p = np.exp(s - s.max(axis=-1, keepdims=True))
            p /= p.sum(axis=-1, keepdims=True)
            out[request] = np.einsum("grnm,mge->ngre", p, v.astype(wide)).reshape(*q.shape[:2], -1).astype(q.dtype)
        return out

    def copied(self, request):
        ring = (tuple(x.copy() for x in self.rings[request][:2]) + self.rings[request][2:],) if request in self.rings else ()
        return ring, self.recent[request]

    def restored(self, request, ring, recent):
        self.recent[request] = recent
        self.rings.update({request: one for one in ring})

    def fork(self, parent, child):
        self.restored(child, *self.copied(parent))

    def preempt(self, request):
        self.finish(request)

    def swap_out(self, request):
        kept = self.copied(request)
        self.finish(request)
        self.host[request] = kept

    def swap_in(self, request):
        self.restored(request, *self.host.pop(request))

    def finish(self, request):
        for place in (self.rings, self.recent, self.host):
            place.pop(request, None)
