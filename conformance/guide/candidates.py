"""What can be chosen among, and what each costs: multiplications, memory, cache, error, effort.

Costs follow from the definitions of the methods and are of one head unless said otherwise; the error is measured, by the oracle; the effort
is how many mistakes are known that an implementation can make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from conformance.pitfalls import pitfalls_for
from oracle import METHODS, attention
from oracle.cache_size import kv_cache_bytes

__all__ = ["CANDIDATES", "QUALITIES", "Candidate", "Sizes", "effort", "measured_error"]

# From the most demanding on: the numbers of softmax attention itself, something near, a method that the model is trained with and that can
# still single out any token, or any method that it is trained with.
QUALITIES = ("exact", "close", "recall", "trained")

# As the papers have them: tiles of FlashAttention, windows and globals of Longformer, blocks of native sparse attention.
TILE, WINDOW, GLOBALS = 128, 64, 2
KEYS_OF_WINDOW = 2 * WINDOW + 1 + GLOBALS
NSA = {"compress_block": 32, "compress_stride": 16, "select_block": 64, "select_count": 16, "window": 512}

# An error is measured on so many keys at most: it says how it compares, and takes a moment.
MEASURED_KEYS, MEASURED_WIDTH = 512, 64

LATENT, ROTARY = 512, 64


@dataclass(frozen=True)
class Sizes:
    """Of a model.

    Attributes:
        length: tokens of the context.
        heads, width: of queries; keys and values are as many and as wide unless the candidate says otherwise.
        layers: whose caches, or whose weights for the backward pass, are held at the same time.
        itemsize: bytes of a number.
    """

    length: int
    heads: int = 32
    width: int = 128
    layers: int = 32
    itemsize: int = 2


@dataclass(frozen=True)
class Candidate:
    """One choice.

    Attributes:
        name: in words.
        method: in the catalogue.
        quality: the most demanding of `QUALITIES` that it gives.
        cost: multiplications of a query of one head, from the sizes.
        held: numbers that a layer holds besides queries, keys, values and outputs, of all heads.
        cache: bytes of the cache or state of one layer while decoding.
        kernels: names of implementations whose measurements count as its own.
        options: with which its error is measured.
        reason: for it.
        against: it.
        read: the part of the cache that a token reads.
        trains: whether it has a backward pass.
    """

    name: str
    method: str
    quality: str
    cost: Callable[[Sizes], float]
    held: Callable[[Sizes], float]
    cache: Callable[[Sizes], float]
    kernels: tuple[str, ...]
    reason: str
    against: str
    options: Mapping[str, Any] | None = None
    read: Callable[[Sizes], float] = lambda sizes: 1.0
    trains: bool = True


def _kv(kind: str, **dims: int) -> Callable[[Sizes], float]:
    def taken(sizes: Sizes) -> float:
        if kind == "mla":
            return kv_cache_bytes("mla", tokens=sizes.length, itemsize=sizes.itemsize, latent_dim=LATENT, rope_dim=ROTARY)
        own = {"kv_heads": max(sizes.heads // dims.get("group", 1), 1)} if kind == "gqa" else {}
        return kv_cache_bytes(kind, tokens=sizes.length, itemsize=sizes.itemsize, heads=sizes.heads, head_dim=sizes.width, **own)

    return taken


def _dense_cost(sizes: Sizes) -> float:
    return 2.0 * sizes.length * sizes.width


def _window_keys(sizes: Sizes) -> int:
    return min(KEYS_OF_WINDOW, sizes.length)


def _tiles(sizes: Sizes) -> float:
    return float(sizes.heads * TILE * TILE)


def _state(sizes: Sizes) -> float:
    return float(sizes.heads * sizes.width * sizes.width)


def _sparse_keys(sizes: Sizes) -> float:
    return min(sizes.length, NSA["select_count"] * NSA["select_block"] + NSA["window"]) + sizes.length / NSA["compress_stride"]


CANDIDATES: tuple[Candidate, ...] = (
    Candidate(
        "standard attention", "attention", "exact", _dense_cost, lambda sizes: float(sizes.heads * sizes.length**2), _kv("mha"),
        ("numpy.standard", "torch.standard"), "the least code, and nothing is faster while all weights fit a cache",
        "it holds every weight, quadratic in the length",
    ),
    Candidate(
        "FlashAttention", "attention", "exact", _dense_cost, _tiles, _kv("mha"), ("numpy.flash2", "torch.flash2", "torch.sdpa"),
        "the numbers of softmax attention without its matrix of weights", "its arithmetic is still quadratic",
    ),
    Candidate(
        "FlashAttention, products in 8 bits", "sage_attention", "close", lambda sizes: _dense_cost(sizes) / 2, _tiles, _kv("mha"),
        ("numpy.sage_attention", "torch.sage_attention"), "half the cost where 8-bit products run at twice the rate",
        "only hardware with such products gains from it; errors of per cents", trains=False,
    ),
    Candidate(
        "grouped-query attention, 4 queries a head", "attention", "recall", _dense_cost, _tiles, _kv("gqa", group=4),
        ("numpy.flash2", "torch.flash2", "torch.sdpa"), "a quarter of the cache; existing models are converted with little training",
        "prefill costs as much as before",
    ),
    Candidate(
        "multi-query attention", "attention", "recall", _dense_cost, _tiles, _kv("mqa"), ("numpy.flash2", "torch.flash2", "torch.sdpa"),
        "one key/value head for all", "it costs quality where grouped queries hardly do (Ainslie et al. 2023, arXiv:2305.13245)",
    ),
    Candidate(
        "latent attention", "latent_attention", "recall", lambda sizes: sizes.length * (2.0 * sizes.width + ROTARY), _tiles, _kv("mla"),
        ("numpy.latent_absorbed", "torch.latent_absorbed"), f"a row of {LATENT + ROTARY} for all heads, and quality of many heads",
        "while decoding, more arithmetic than heads of their own width would take",
    ),
    Candidate(
        "sliding window with global tokens", "local_global_attention", "trained",
        lambda sizes: 2.0 * _window_keys(sizes) * sizes.width, lambda sizes: float(sizes.heads * TILE * (2 * TILE + GLOBALS)),
        lambda sizes: 2.0 * sizes.heads * sizes.width * min(WINDOW + GLOBALS, sizes.length) * sizes.itemsize,
        ("numpy.local_global", "torch.local_global"), "linear cost and a cache that does not grow; what is near is weighed by a softmax",
        "what lies between the window and the global tokens is not seen in this layer",
        {"window": WINDOW, "global_tokens": [0, 1]},
    ),
    Candidate(
        "native sparse attention", "native_sparse_attention", "recall", lambda sizes: 2.0 * _sparse_keys(sizes) * sizes.width, _tiles,
        _kv("mha"), ("numpy.native_sparse", "torch.native_sparse"), "every key can be reached, a few blocks are read in full",
        "the cache is kept whole; three branches and a choice of blocks to get right",
        read=lambda sizes: min(_sparse_keys(sizes) / sizes.length, 1.0),
    ),
    Candidate(
        "linear attention", "linear_attention", "trained", lambda sizes: 2.0 * sizes.width**2, _state,
        lambda sizes: _state(sizes) * 4, ("numpy.linear_chunked", "torch.linear_chunked"),
        "linear cost and a state of fixed size", "it cannot single out a key: recall over long contexts suffers",
    ),
    Candidate(
        "gated delta rule", "gated_delta_rule", "trained", lambda sizes: 4.0 * sizes.width**2, _state,
        lambda sizes: _state(sizes) * 4, ("numpy.gated_delta_chunked", "torch.gated_delta_chunked"),
        "a state of fixed size that forgets and overwrites, which recalls more than sums do",
        "a recurrence with a triangular solve in every chunk",
    ),
)  # fmt: skip


def effort(candidate: Candidate) -> int:
    """How many known mistakes an implementation can make."""
    return len(pitfalls_for(candidate.method))


@cache
def measured_error(name: str, length: int) -> float | None:
    """Relative difference to softmax attention in the Frobenius norm, on standard normal numbers.

    Args:
        name: of a candidate.
        length: of the context; the error is of at most `MEASURED_KEYS` keys.

    Returns:
        0 for what is softmax attention by its meaning; None for what has other inputs or fewer heads, and so nothing to compare.
    """
    candidate = next(one for one in CANDIDATES if one.name == name)
    if candidate.method == "attention":
        return 0.0 if candidate.quality == "exact" else None
    method = METHODS[candidate.method]
    if {spec.name for spec in method.signature.required} != {"q", "k", "v"}:
        return None
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 1, min(length, MEASURED_KEYS), MEASURED_WIDTH)) for _ in range(3))
    exact = attention(q, k, v)
    options = {**(candidate.options or {})}
    if "global_tokens" in options:
        options["global_tokens"] = [token for token in options["global_tokens"] if token < q.shape[2]]
    outputs = method(q, k, v, **options)
    got = outputs[0] if isinstance(outputs, tuple) else outputs
    return float(np.linalg.norm(got - exact) / np.linalg.norm(exact))
