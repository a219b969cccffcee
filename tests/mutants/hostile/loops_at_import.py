import time

while True:
    time.sleep(1)

from right import attention


def kernel(q, k, v, *, scale=None):
    return attention(q, k, v, scale)
