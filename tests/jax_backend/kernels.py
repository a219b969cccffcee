"""Kernels in JAX: right ones, and ones that are wrong in ways that only JAX has."""

from functools import partial

import jax
import jax.numpy as jnp


def _attention(q, k, v):
    group = q.shape[1] // k.shape[1]
    k, v = jnp.repeat(k, group, axis=1), jnp.repeat(v, group, axis=1)
    logits = jnp.einsum("bhld,bhsd->bhls", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True, initial=jnp.finfo(jnp.float32).min))
    total = weights.sum(axis=-1, keepdims=True)
    return (jnp.einsum("bhls,bhse->bhle", weights, v) / jnp.where(total == 0, 1, total)).astype(q.dtype)


@jax.jit
def right(q, k, v):
    return _attention(q, k, v)


@jax.jit
def in_half_precision(q, k, v):
    return _attention(*(x.astype(jnp.bfloat16) for x in (q, k, v))).astype(q.dtype)


@partial(jax.jit, donate_argnums=0)
def gives_its_queries_away(q, k, v):
    return _attention(q, k, v) + 0 * q.sum()


def returns_a_numpy_array(q, k, v):
    import numpy

    return numpy.asarray(_attention(q, k, v))


def returns_its_queries(q, k, v):
    return q


def sets_the_precision(q, k, v):
    jax.config.update("jax_default_matmul_precision", "highest")
    return _attention(q, k, v)


def says_which_dtype_it_got(q, k, v):
    raise ValueError(f"{q.dtype} {jax.config.jax_enable_x64} {jnp.zeros(1).devices()}")


LEAKED = []


def leaks_a_tracer(q, k, v):
    jax.jit(lambda x: LEAKED.append(x))(_attention(q, k, v))
    return LEAKED[-1]


def fails_late(q, k, v):
    def refuse(x):
        raise RuntimeError("too late")

    return jax.pure_callback(refuse, jax.ShapeDtypeStruct((*q.shape[:3], v.shape[3]), q.dtype), q)
