"""Speculative sampling, one sequence at a time."""

import numpy as np


def kernel(p, q, draft, u, u_sample):
    p, q, u, r = (x.astype(np.float32) for x in (p, q, u, u_sample))
    batch, n = draft.shape
    out = np.full((batch, n + 1), -1, np.int64)
    for b in range(batch):
        w, count = p[b, n], n
        for i, t in enumerate(draft[b]):
            if u[b, i] * q[b, i, t] <= p[b, i, t] and q[b, i, t] > 0:
                w, count = np.maximum(p[b, i] - q[b, i], 0), i
                if not w.any():
                    w = p[b, i]
                break
        cdf = np.cumsum(w)
        j = np.searchsorted(cdf, r[b] * w.sum(), side="right")
        out[b, :count] = draft[b, :count]
        out[b, count] = min(j, np.flatnonzero(w > 0)[-1] if (w > 0).any() else 0)
    return out
