import numpy as np


def kernel(q, k, v, *, feature_map="relu+1", eps=1e-6):
    phi = {
        "relu+1": lambda x: np.maximum(x, 0) + 1,
        "relu": lambda x: np.maximum(x, 0),
        "exp": np.exp,
        "elu+1": lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))),
    }[feature_map]
    gate = 0.5 * (1 + np.tanh(0.5 * k.sum(axis=-1, keepdims=True)))
    keys = phi(k) * gate
    return phi(q) @ (keys.swapaxes(2, 3) @ v) / (phi(q) @ keys.sum(axis=2)[..., None] + eps)
