"""Linear attention and its relatives in JAX: a scan over chunks, and an associative scan over tokens.

All compute in float32 (float64 for float64). Shapes: q, k (B, H, L, D), v (B, H, L, Dv) -> (B, H, L, Dv).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from conformance import register
from conformance.registry import block_sizes
from implementations.jax.logits import HIGHEST, working_dtype

__all__ = ["chunked", "gated_associative", "retention_associative", "scalar_gated"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def features(x: Array, feature_map: str) -> Array:
    """Non-negative features, elementwise."""
    if feature_map == "exp":
        return jnp.exp(x)
    if feature_map == "elu+1":
        # jax.nn.elu(x) + 1 would cancel for x << 0; the branch that is not taken must not overflow.
        return jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))
    return jax.nn.relu(x) + 1 if feature_map == "relu+1" else jax.nn.relu(x)


def with_ones(v: Array, dtype: Any) -> Array:
    """Values with a column of ones, whose weighed sum is the denominator."""
    return jnp.concatenate([v.astype(dtype), jnp.ones((*v.shape[:3], 1), dtype)], axis=3)


def product(equation: str, *factors: Array) -> Array:
    """A sum of products with all bits of its factors."""
    return jnp.einsum(equation, *factors, precision=HIGHEST)


@register(
    "linear_attention", backend="jax", name="jax.linear_chunked", dtypes=DTYPES, tunables={"chunk_size": block_sizes},
    description="a scan over chunks that carries the state",
)  # fmt: skip
@partial(jax.jit, static_argnames=("feature_map", "causal", "chunk_size"))
def chunked(
    q: Array, k: Array, v: Array, *, feature_map: str = "elu+1", causal: bool = False, eps: float = 1e-6, chunk_size: int = 64
) -> Array:
    """Chunks one after the other (Yang et al. 2023, section 2.2, arXiv:2312.06635); padding has no features."""
    dtype, length = working_dtype(q), q.shape[2]
    chunk = min(chunk_size, max(length, 1))
    count = -(-length // chunk)

    def cut(x: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), (0, 0), (0, count * chunk - length), (0, 0)))
        return jnp.moveaxis(padded.reshape(*x.shape[:2], count, chunk, x.shape[3]), 2, 0)

    queries, keys = features(q.astype(dtype), feature_map), features(k.astype(dtype), feature_map)
    values = with_ones(v, dtype)
    if causal:
        below = jnp.tri(chunk, dtype=bool)

        def step(state: Array, parts: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            own_q, own_k, own_v = parts
            weights = jnp.where(below, product("bhld,bhsd->bhls", own_q, own_k), 0)
            sums = product("bhls,bhse->bhle", weights, own_v) + product("bhld,bhde->bhle", own_q, state)
            return state + product("bhsd,bhse->bhde", own_k, own_v), sums

        start = jnp.zeros((*k.shape[:2], k.shape[3], values.shape[3]), dtype)
        _, parts = lax.scan(step, start, (cut(queries), cut(keys), cut(values)))
        sums = jnp.moveaxis(parts, 0, 2).reshape(*q.shape[:2], count * chunk, values.shape[3])[:, :, :length]
    else:
        sums = product("bhld,bhde->bhle", queries, product("bhsd,bhse->bhde", keys, values))
    return (sums[..., :-1] / (sums[..., -1:] + eps)).astype(q.dtype)


@register(
    "scalar_gated_linear_attention", backend="jax", name="jax.scalar_gated_linear", dtypes=DTYPES,
    description="gates, features and values in two sums of products",
)  # fmt: skip
@partial(jax.jit, static_argnames=("feature_map",))
def scalar_gated(q: Array, k: Array, v: Array, *, feature_map: str = "relu+1", eps: float = 1e-6) -> Array:
    """The gate of a key multiplies its features; a column of ones in the values makes the denominator."""
    dtype = working_dtype(q)
    keys = k.astype(dtype)
    gates = jax.nn.sigmoid(keys.sum(axis=-1, keepdims=True))
    state = product("bhsd,bhse->bhde", features(keys, feature_map) * gates, with_ones(v, dtype))
    sums = product("bhld,bhde->bhle", features(q.astype(dtype), feature_map), state)
    return (sums[..., :-1] / (sums[..., -1:] + eps)).astype(q.dtype)


def _states(decay: Array, added: Array, initial: Array | None) -> Array:
    """The state after each token, S_t = decay_t S_{t-1} + added_t, along axis 2, by an associative scan over (decay, state).

    Blelloch 1990, "Prefix sums and their applications", section 1.4.1: such pairs compose associatively.
    """
    if initial is not None:
        added = added.at[:, :, :1].add(decay[:, :, :1] * initial[:, :, None])

    def then(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        return first[0] * second[0], second[0] * first[1] + second[1]

    _, states = lax.associative_scan(then, (jnp.broadcast_to(decay, added.shape), added), axis=2)
    return states


@register(
    "gated_linear_attention", backend="jax", name="jax.gated_associative", dtypes=DTYPES,
    description="all states by an associative scan over tokens",
)  # fmt: skip
@jax.jit
def gated_associative(
    q: Array, k: Array, v: Array, g: Array, *, scale: float | None = None, initial_state: Array | None = None
) -> tuple[Array, Array]:
    """Logarithmically many steps; every state is held, so that the memory is L D Dv numbers a head."""
    dtype, width = working_dtype(q), q.shape[3]
    rows = q.astype(dtype) * (width**-0.5 if scale is None else scale)
    added = k.astype(dtype)[..., None] * v.astype(dtype)[..., None, :]
    initial = jnp.zeros((*k.shape[:2], width, v.shape[3]), dtype) if initial_state is None else initial_state.astype(dtype)
    if not q.shape[2]:
        return v, initial
    states = _states(jnp.exp(g.astype(dtype))[..., None], added, initial)
    return product("bhld,bhlde->bhle", rows, states).astype(q.dtype), states[:, :, -1]


@register(
    "retention", backend="jax", name="jax.retention_associative", dtypes=DTYPES, description="all states by an associative scan over tokens"
)
@jax.jit
def retention_associative(q: Array, k: Array, v: Array, decay: Array, *, scale: float | None = None) -> Array:
    """The recurrent form (Sun et al. 2023, eq. 6, arXiv:2307.08621) with one decay for each head."""
    dtype = working_dtype(q)
    rows = q.astype(dtype) * (q.shape[3] ** -0.5 if scale is None else scale)
    added = k.astype(dtype)[..., None] * v.astype(dtype)[..., None, :]
    if not q.shape[2]:
        return v
    states = _states(decay.astype(dtype)[:, None, None, None], added, None)
    return product("bhld,bhlde->bhle", rows, states).astype(q.dtype)
