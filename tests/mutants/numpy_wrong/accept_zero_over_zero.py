import numpy as np


def kernel(p, q, draft, u):
    n = draft.shape[1]
    a = np.take_along_axis(p[:, :n].astype(np.float32), draft[..., None], -1)[..., 0]
    b = np.take_along_axis(q.astype(np.float32), draft[..., None], -1)[..., 0]
    with np.errstate(all="ignore"):
        ok = u.astype(np.float32) <= a / b
    return np.cumprod(ok, axis=1).sum(axis=1).astype(np.int64)
