import numpy as np


def kernel(p, q, draft, u):
    out = np.zeros(len(draft), np.int64)
    for b in range(len(draft)):
        for i, t in enumerate(draft[b]):
            a, c, r = (np.float32(x) for x in (p[b, i, t], q[b, i, t], u[b, i]))
            if a < c and r > a / c:
                break
            out[b] += 1
    return out
