import numpy as np


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def kernel(q, k, v, *, causal=False, eps=1e-6):
    phi_q, phi_k = elu(q) + 1, elu(k) + 1
    if not causal:
        context = np.einsum("bhld,bhle->bhde", phi_k, v)
        norm = np.einsum("bhld,bhd->bhl", phi_q, phi_k.sum(axis=2))
        return np.einsum("bhld,bhde->bhle", phi_q, context) / (norm[..., None] + eps)
    weights = np.tril(np.einsum("bhid,bhjd->bhij", phi_q, phi_k))
    return weights @ v / (weights.sum(-1, keepdims=True) + eps)
