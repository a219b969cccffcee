"""A static cache: rows of one tensor, the last of which moves to where a request leaves."""

import torch


class StaticCache:
    def __init__(self, *, num_kv_heads, head_dim, value_dim, dtype, max_tokens, max_requests, scale=None):
        self.scale = head_dim**-0.5 if scale is None else scale
        self.k = torch.zeros(max_requests, max_tokens, num_kv_heads, head_dim, dtype=dtype)
        self.v = torch.zeros(max_requests, max_tokens, num_kv_heads, value_dim, dtype=dtype)
        self.lengths = torch.zeros(max_requests, dtype=torch.uint8)
        self.batch = []
        self.host = {}

    def row(self, request):
        if request not in self.batch:
            self.batch.append(request)
            self.lengths[len(self.batch) - 1] = 0
        return self.batch.index(request)

    def append(self, request, k, v):
        row = self.row(request)
        start = int(self.lengths[row])
        self.k[row, start : start + len(k)] = k
        self.v[row, start : start + len(k)] = v
        self.lengths[row] += len(k)

    def attend(self, queries):
        out = {}
        for request, q in queries.items():
            row = self.row(request)
            n = int(self.lengths[row])
            k, v = self.k[row, :n], self.v[row, :n]
            group = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
            wide = torch.promote_types(q.dtype, torch.float32)
            scores = torch.einsum("nhd,mhd->hnm", q.to(wide), k.to(wide)) * self.scale
            position = torch.arange(n - len(q), n)
            scores = scores.masked_fill(torch.arange(n) > position[:, None], float("-inf"))
            weights = scores.softmax(dim=-1)
            out[request] = torch.einsum("hnm,mhe->nhe", weights, v.to(wide)).to(q.dtype)
        return out

    def fork(self, parent, child):
        source, row = self.row(parent), self.row(child)
        self.k[row], self.v[row] = self.k[source], self.v[source]
        self.lengths[row] = self.lengths[source]

    def leave(self, request):
        row, last = self.batch.index(request), len(self.batch) - 1
        self.k[row], self.v[row] = self.k[last], self.v[last]
        self.lengths[row] = self.lengths[last]
        self.batch[row] = self.batch[last]
        self.batch.pop()

    def preempt(self, request):
        self.leave(request)

    def swap_out(self, request):
        row = self.row(request)
        n = int(self.lengths[row])
        self.host[request] = self.k[row, :n].clone(), self.v[row, :n].clone()
        self.leave(request)

    def swap_in(self, request):
        self.append(request, *self.host.pop(request))

    def finish(self, request):
        self.host.pop(request, None)
        if request in self.batch:
            self.leave(request)
