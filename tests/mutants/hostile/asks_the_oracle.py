from oracle import get_method

SPECIFICATION = get_method("attention")


def kernel(q, k, v, *, scale=None):
    return SPECIFICATION(q, k, v, scale=scale).astype(q.dtype)
