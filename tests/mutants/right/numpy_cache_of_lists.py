"""A dictionary of lists of numbers: no arrays are kept, and dot products are summed by math.fsum."""

import math

import numpy as np


class KVCache:
    def __init__(self, *, scale=None):
        self.scale = scale
        self.tokens = {}
        self.host = {}

    def append(self, request, k, v):
        rows = zip(k.astype(np.float64).tolist(), v.astype(np.float64).tolist(), strict=True)
        self.tokens[request] = self.tokens.get(request, ()) + tuple(rows)

    def attend(self, queries):
        return {request: self.one(self.tokens[request], q) for request, q in queries.items()}

    def one(self, tokens, q):
        count, heads, width = q.shape
        group = heads // len(tokens[0][0])
        scale = width**-0.5 if self.scale is None else self.scale
        rows = q.astype(np.float64).tolist()
        out = [
            [self.weigh(rows[i][h], tokens[: len(tokens) - count + i + 1], h // group, scale) for h in range(heads)] for i in range(count)
        ]
        return np.array(out).astype(q.dtype)

    def weigh(self, q, tokens, head, scale):
        scores = [scale * math.fsum(a * b for a, b in zip(q, k[head], strict=True)) for k, _ in tokens]
        top = max(scores)
        weights = [math.exp(score - top) for score in scores]
        total = math.fsum(weights)
        return [math.fsum(w * v[head][e] for w, (_, v) in zip(weights, tokens, strict=True)) / total for e in range(len(tokens[0][1][0]))]

    def fork(self, parent, child):
        self.tokens[child] = self.tokens[parent]

    def preempt(self, request):
        del self.tokens[request]

    def swap_out(self, request):
        self.host[request] = self.tokens.pop(request)

    def swap_in(self, request):
        self.tokens[request] = self.host.pop(request)

    def finish(self, request):
        self.host.pop(request, None)
        self.tokens.pop(request, None)
