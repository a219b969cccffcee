"""All requests in one padded batch."""

import torch


class BatchedCache:
    def __init__(self, *, head_dim, scale=None):
        self.scale = head_dim**-0.5 if scale is None else scale
        self.keys, self.values = {}, {}

    def append(self, request, k, v):
        if request in self.keys:
            k, v = torch.cat([self.keys[request], k]), torch.cat([self.values[request], v])
        self.keys[request], self.values[request] = k.clone(), v.clone()

    def attend(self, queries):
        wide = torch.promote_types(next(iter(queries.values())).dtype, torch.float32)
        pad = lambda rows: torch.nn.utils.rnn.pad_sequence([row.to(wide) for row in rows], batch_first=True)
        q, k, v = (pad(rows) for rows in (queries.values(), [self.keys[r] for r in queries], [self.values[r] for r in queries]))
        group = q.shape[2] // k.shape[2]
        k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
        length = torch.tensor([len(self.keys[r]) for r in queries])[:, None, None]
        count = torch.tensor([len(x) for x in queries.values()])[:, None, None]
        own = length - count + torch.arange(q.shape[1])[:, None]
        place = torch.arange(k.shape[1])
        hidden = (place > own) | (place >= length)
        scores = torch.einsum("bnhd,bmhd->bhnm", q, k) * self.scale
        weights = scores.masked_fill(hidden[:, None], float("-inf")).softmax(dim=-1)
        out = torch.einsum("bhnm,bmhe->bnhe", weights, v)
        return {r: out[i, : len(x)].to(x.dtype) for i, (r, x) in enumerate(queries.items())}

    def fork(self, parent, child):
        self.keys[child], self.values[child] = self.keys[parent], self.values[parent]

    def preempt(self, request):
        self.finish(request)

    def finish(self, request):
        self.keys.pop(request, None)
        self.values.pop(request, None)
