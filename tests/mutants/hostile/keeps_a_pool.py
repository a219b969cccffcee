from concurrent.futures import ThreadPoolExecutor

from right import attention

POOL = ThreadPoolExecutor(4)


def kernel(q, k, v, *, scale=None):
    return POOL.submit(attention, q, k, v, scale).result()
