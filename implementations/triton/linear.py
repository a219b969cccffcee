"""Linear attention in Triton, by chunks: the sums over keys first, then all chunks of queries at once.

Features, sums and products are float32. Shapes: q, k (B, H, L, D), v (B, H, L, Dv) -> (B, H, L, Dv), with any strides.
"""

from __future__ import annotations

from implementations.triton.interpreter import kernel, padded, present, register_kernel, small, stored_dtype  # isort: skip  (before Triton)

import torch
import triton
import triton.language as tl
from torch import Tensor

from implementations.triton.exponential import exp, sigmoid

__all__ = ["linear", "scalar_gated_linear"]

SMALL = small("b * h * (l + 16)", 4096)
CHUNKS = {"chunk_size": (16, 32, 64)}
WIDEST = 32  # columns of values of a program


@triton.jit
def _features(x, some, MAP: tl.constexpr):
    """Non-negative features, 0 where there is nothing; no branch overflows that is not taken."""
    if MAP == "exp":
        features = exp(x)
    elif MAP == "elu+1":
        features = tl.where(x > 0, x + 1, exp(tl.minimum(x, 0.0)))
    elif MAP == "relu+1":
        features = tl.maximum(x, 0.0) + 1
    else:
        features = tl.maximum(x, 0.0)
    return tl.where(some, features, 0.0)


@triton.jit
def _keys(k_at, some, MAP: tl.constexpr, GATED: tl.constexpr):
    """Features of keys (chunk, D), times the sigmoid of the sum of the key itself where they are gated."""
    k = tl.load(k_at, mask=some, other=0.0).to(tl.float32)
    features = _features(k, some, MAP)
    if GATED:
        features = features * sigmoid(tl.sum(k, 1))[:, None]
    return features


@kernel
def _sums(
    K, V, STATES, SIZES, k_b, k_h, k_l, k_d, v_b, v_h, v_l, v_e, s_r, s_n, s_d, z_r, z_n,
    heads, length, width, values, chunks,
    MAP: tl.constexpr, GATED: tl.constexpr, EVERY: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Sums over keys of phi(k) v and of phi(k): those before every chunk, or those over all keys."""
    row = tl.program_id(0).to(tl.int64)
    batch, head = row // heads, row % heads
    c, d, e = tl.arange(0, CHUNK), tl.arange(0, BLOCK_D), tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    some_d, some_e = d < width, e[None, :] < values
    state_at = STATES + row * s_r + d[:, None] * s_d + e[None, :]
    size_at = SIZES + row * z_r + d
    first = tl.program_id(1) == 0  # of the programs that form the same sums of keys
    state = tl.zeros([BLOCK_D, BLOCK_E], tl.float32)
    size = tl.zeros([BLOCK_D], tl.float32)
    for n in range(chunks):
        if EVERY:
            tl.store(state_at + n * s_n, state, mask=some_d[:, None] & some_e)
            if first:
                tl.store(size_at + n * z_n, size, mask=some_d)
        t = n * CHUNK + c
        inside = t[:, None] < length
        keys = _keys(K + batch * k_b + head * k_h + t[:, None] * k_l + d[None, :] * k_d, inside & some_d[None, :], MAP, GATED)
        v = tl.load(V + batch * v_b + head * v_h + t[:, None] * v_l + e[None, :] * v_e, mask=inside & some_e, other=0.0).to(tl.float32)
        state += tl.dot(tl.trans(keys), v, input_precision="ieee")
        size += tl.sum(keys, 0)
    if not EVERY:
        tl.store(state_at, state, mask=some_d[:, None] & some_e)
        if first:
            tl.store(size_at, size, mask=some_d)


@kernel
def _outputs(
    Q, K, V, STATES, SIZES, OUT,
    q_b, q_h, q_l, q_d, k_b, k_h, k_l, k_d, v_b, v_h, v_l, v_e, s_r, s_n, s_d, z_r, z_n, o_b, o_h, o_l, o_e,
    heads, length, width, values, eps,
    MAP: tl.constexpr, CAUSAL: tl.constexpr, CHUNK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """One chunk of queries: what the sums before it give, and with causality the keys of the chunk itself."""
    n, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    batch, head = row // heads, row % heads
    c, d, e = tl.arange(0, CHUNK), tl.arange(0, BLOCK_D), tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    t = n * CHUNK + c
    some_d, some_e, inside = d < width, e[None, :] < values, t[:, None] < length
    some = inside & some_d[None, :]
    q = tl.load(Q + batch * q_b + head * q_h + t[:, None] * q_l + d[None, :] * q_d, mask=some, other=0.0).to(tl.float32)
    queries = _features(q, some, MAP)
    state = tl.load(STATES + row * s_r + n * s_n + d[:, None] * s_d + e[None, :], mask=some_d[:, None] & some_e, other=0.0)
    size = tl.load(SIZES + row * z_r + n * z_n + d, mask=some_d, other=0.0)
    sums = tl.dot(queries, state, input_precision="ieee")
    total = tl.sum(queries * size[None, :], 1)
    if CAUSAL:
        keys = _keys(K + batch * k_b + head * k_h + t[:, None] * k_l + d[None, :] * k_d, some, MAP, False)
        v = tl.load(V + batch * v_b + head * v_h + t[:, None] * v_l + e[None, :] * v_e, mask=inside & some_e, other=0.0).to(tl.float32)
        weights = tl.dot(queries, tl.trans(keys), input_precision="ieee")
        weights = tl.where(c[None, :] <= c[:, None], weights, 0.0)
        sums += tl.dot(weights, v, input_precision="ieee")
        total += tl.sum(weights, 1)
    out = sums / (total + eps)[:, None]
    out_at = OUT + batch * o_b + head * o_h + t[:, None] * o_l + e[None, :] * o_e
    tl.store(out_at, out.to(OUT.dtype.element_ty), mask=inside & some_e)


def _by_chunks(q: Tensor, k: Tensor, v: Tensor, feature_map: str, causal: bool, gated: bool, eps: float, chunk_size: int) -> Tensor:
    (batch, heads, length, width), values = q.shape, v.shape[3]
    out = q.new_empty((batch, heads, length, values), dtype=stored_dtype(q.dtype))
    if out.numel() == 0:
        return out.to(q.dtype)
    rows, chunks = batch * heads, triton.cdiv(length, chunk_size)
    kept = chunks if causal else 1
    states = q.new_empty((rows, kept, width, values), dtype=torch.float32)
    sizes = q.new_empty((rows, kept, width), dtype=torch.float32)
    steps = [states.stride(0), states.stride(1) if causal else 0, states.stride(2), sizes.stride(0), sizes.stride(1) if causal else 0]
    block = min(padded(values), WIDEST)
    columns = triton.cdiv(values, block)
    q, k, states, sizes = (present(x, out) for x in (q, k, states, sizes))
    _sums[(rows, columns)](
        k, v, states, sizes, *k.stride(), *v.stride(), *steps, heads, length, width, values, chunks,
        MAP=feature_map, GATED=gated, EVERY=causal, CHUNK=chunk_size, BLOCK_D=padded(width), BLOCK_E=block,
    )  # fmt: skip
    _outputs[(chunks, rows, columns)](
        q, k, v, states, sizes, out, *q.stride(), *k.stride(), *v.stride(), *steps, *out.stride(),
        heads, length, width, values, float(eps),
        MAP=feature_map, CAUSAL=causal, CHUNK=chunk_size, BLOCK_D=padded(width), BLOCK_E=block,
    )  # fmt: skip
    return out.to(q.dtype)


@register_kernel(
    "linear_attention", name="triton.linear", restrictions=SMALL, tunables=CHUNKS,
    description="chunks in Triton: states before each, then all chunks at once",
)  # fmt: skip
def linear(
    q: Tensor, k: Tensor, v: Tensor, *, feature_map: str = "elu+1", causal: bool = False, eps: float = 1e-6, chunk_size: int = 32
) -> Tensor:
    """Two kernels, as chunked linear attention is trained (Yang et al. 2023, section 3, arXiv:2312.06635)."""
    return _by_chunks(q, k, v, feature_map, causal, False, eps, chunk_size)


@register_kernel(
    "scalar_gated_linear_attention", name="triton.scalar_gated_linear", restrictions=SMALL,
    tunables=CHUNKS, description="chunks of gated keys in Triton make one state, which all queries read",
)  # fmt: skip
def scalar_gated_linear(
    q: Tensor, k: Tensor, v: Tensor, *, feature_map: str = "relu+1", eps: float = 1e-6, chunk_size: int = 32
) -> Tensor:
    """The gate multiplies the features of its key, before numerator and denominator part."""
    return _by_chunks(q, k, v, feature_map, False, True, eps, chunk_size)
