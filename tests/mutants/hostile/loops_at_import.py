READY = False

while not READY:  # whoever was to set it is never imported
    pass

from right import attention


def kernel(q, k, v, *, scale=None):
    return attention(q, k, v, scale)
