import numpy as np


def kernel(loads):
    x = loads.astype(np.float32)
    mean = x.mean()
    if mean == 0:
        return np.zeros((), np.float32)
    var = (x * x).mean() - mean * mean
    return np.asarray(np.sqrt(max(var, 0)) / mean, np.float32)
