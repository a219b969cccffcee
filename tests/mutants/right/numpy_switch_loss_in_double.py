import numpy as np


def kernel(probabilities, indices):
    tokens, experts = probabilities.shape
    hot = (indices[..., None] == np.arange(experts)).sum(axis=(0, 1))
    loss = experts * hot @ probabilities.astype(np.float64).sum(axis=0) / max(indices.size * tokens, 1)
    return np.asarray(loss).astype(probabilities.dtype)
