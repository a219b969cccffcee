import numpy as np


def kernel(p, q, draft, u):
    a = np.take_along_axis(p[:, 1:].astype(np.float32), draft[..., None], -1)[..., 0]
    b = np.take_along_axis(q.astype(np.float32), draft[..., None], -1)[..., 0]
    ok = u.astype(np.float32) * b <= a
    return np.cumprod(ok, axis=1).sum(axis=1).astype(np.int64)
