"""One right kernel behind every kind of signature that a user may bring."""

import functools

import numpy as np

from conformance import register


def attend(q, k, v, mask=None, causal=False, scale=None, softcap=None, window=None):
    queries, keys, group = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    logits = q @ k.swapaxes(-1, -2) * np.float32(q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        logits = np.tanh(logits / np.float32(softcap)) * np.float32(softcap)
    ahead = np.arange(keys) - np.arange(queries)[:, None] - (keys - queries)
    left, right = (None, None) if window is None else window
    allowed = np.ones((queries, keys), bool) if mask is None else np.asarray(mask)
    allowed = allowed & (ahead <= 0) if causal else allowed
    allowed = allowed if left is None else allowed & (ahead >= -left)
    allowed = allowed if right is None else allowed & (ahead <= right)
    logits = np.where(allowed, logits, np.float32(-np.inf))
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isfinite(largest), largest, 0))
    total = weights.sum(axis=-1, keepdims=True)
    return (weights @ v) / np.where(total == 0, 1, total)


# What it takes besides the arrays.


def other_names(query, key, value, *, causal=False):
    return attend(query, key, value, causal=causal)


def causal_by_default(q, k, v, causal=True):
    return attend(q, k, v, causal=causal)


def causal_required(q, k, v, causal):
    return attend(q, k, v, causal=causal)


def causal_by_number(q, k, v, causal=0):
    return attend(q, k, v, causal=causal)


def mask_required(q, k, v, mask, *, scale):
    return attend(q, k, v, mask=mask, scale=scale * 1.0)


def scale_of_one(q, k, v, *, scale=1.0):
    return attend(q, k, v, scale=scale * 1.0)


def window_by_default(q, k, v, *, window=(128, 0)):
    left, right = window
    return attend(q, k, v, window=(left, right))


def capped_by_default(q, k, v, *, softcap=50.0):
    return attend(q, k, v, softcap=softcap * 1.0)


def capped_unless_none(q, k, v, *, softcap: float | None = 50.0):
    return attend(q, k, v, softcap=softcap)


def cap_of_zero(q, k, v, *, softcap=0.0):
    return attend(q, k, v, softcap=softcap if softcap > 0 else None)


def anything(*args, **kwargs):
    return attend(*args, **{name: value for name, value in kwargs.items() if name == "causal"})


def named_and_anything(q, k, v, scale=None, **kwargs):
    return attend(q, k, v, scale=scale, **kwargs)


def only_arrays(*arrays):
    return attend(*arrays)


# What it is.


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@logged
def wrapped(q, k, v, *, causal=False):
    return attend(q, k, v, causal=causal)


def configured(precision, q, k, v, *, causal=False, threads=1, block_k=None):
    assert (precision, threads, block_k) == ("high", 2, 8)
    return attend(q, k, v, causal=causal)


bound = functools.partial(configured, "high", threads=2, block_k=8)
bound_causal = functools.partial(attend, causal=True)
anonymous = lambda q, k, v, causal=False: attend(q, k, v, causal=causal)  # noqa: E731


class Layer:
    """As `torch.nn.Module` does: the call passes anything on to forward."""

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def forward(self, query, key, value, causal=False):
        return attend(query, key, value, causal=causal)


class Callable_:
    def __call__(self, q, k, v, *, causal=False):
        return attend(q, k, v, causal=causal)


layer, instance, bound_layer = Layer(), Callable_(), functools.partial(Layer(), causal=False)


# What does not fit.


def keys_first(k, q, v):
    return attend(q, k, v)


def mask_first(mask, q, k, v):
    return attend(q, k, v, mask=mask)


def strangers(a, b, c, *, causal=False):
    return attend(a, b, c, causal=causal)


def position_only(q, k, v, causal=False, /):
    return attend(q, k, v, causal=causal)


def dropping(q, k, v, *, dropout=0.0):
    return attend(q, k, v)


@register("attention", backend="numpy", name="signatures.declared", options=("causal", "scale"))
def declared(q, k, v, **kwargs):
    return attend(q, k, v, **kwargs)


def _made(factor):
    def kernel(q, k, v, *, scale=None):
        return attend(q, k, v, scale=scale) * np.float32(factor)

    return kernel


for _factor in (1, 2):
    register("attention", backend="numpy", name=f"signatures.times_{_factor}")(_made(_factor))
