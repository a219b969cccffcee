import locale

from right import attention


def kernel(q, k, v, *, scale=None):
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C")
    return attention(q, k, v, scale)
