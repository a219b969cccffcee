import numpy as np


MAPS = {
    "relu+1": lambda x: np.maximum(x, 0) + 1,
    "relu": lambda x: np.maximum(x, 0),
    "elu+1": lambda x: np.maximum(x, 0) + np.exp(np.minimum(x, 0)),
    "exp": np.exp,
}


def kernel(q, k, v, *, feature_map="relu+1", eps=1e-6):
    stored = q.dtype
    wide = np.float64 if stored == np.float64 else np.float32
    q, k, v = q.astype(wide), k.astype(wide), v.astype(wide)
    log_gate = -np.logaddexp(0, -k.sum(axis=-1, keepdims=True))
    if feature_map == "exp":
        fq, fk = np.exp(q), np.exp(k + log_gate)  # the gate joins the exponent
    else:
        fq, fk = MAPS[feature_map](q), MAPS[feature_map](k) * np.exp(log_gate)
    num = np.einsum("bhld,bhde->bhle", fq, np.einsum("bhsd,bhse->bhde", fk, v))
    den = np.einsum("bhld,bhd->bhl", fq, fk.sum(axis=2))
    with np.errstate(all="ignore"):
        return (num / (den[..., None] + eps)).astype(stored)
