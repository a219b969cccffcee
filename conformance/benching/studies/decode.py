"""Decoding token by token over a cache of keys and values: what fewer key/value heads save in time and in memory.

Multi-query attention: Shazeer 2019, arXiv:1911.02150; grouped queries: Ainslie et al. 2023, arXiv:2305.13245.
"""

from __future__ import annotations

import inspect
import statistics
import time
from importlib.util import find_spec
from typing import Any

import numpy as np

from conformance.benching.measuring import Step
from conformance.benching.run import Bench
from conformance.benching.studies import Study, Table
from conformance.errors import UsageError
from conformance.isolation.backends import arrays_of
from conformance.loading import load
from conformance.registry import Registration
from conformance.serving.driver import is_cache
from oracle.cache_size import kv_cache_bytes
from oracle.formats import FORMATS

__all__ = ["study"]

CACHES = ("numpy.contiguous_cache", "numpy.paged_cache", "torch.paged_cache", "torch.sliding_cache")
HEADS, REQUESTS, STEPS = 8, 4, 16


def _run(request: Bench, step: Step) -> Table:
    heads = request.heads if request.heads > 1 else HEADS
    requests = request.batch if request.batch > 1 else REQUESTS
    chosen = request.targets or tuple(name for name in CACHES if find_spec(name.partition(".")[0]) is not None)
    kinds = {"mha": heads, "gqa": max(heads // 4, 1), "mqa": 1}
    if request.dtype not in FORMATS:
        raise UsageError(f"dtype={request.dtype!r}, but should be one of {', '.join(FORMATS)}")
    table: Table = []
    total = len(chosen) * len(request.lengths) * len(kinds)
    for name in chosen:
        [registration] = load(name)
        if not is_cache(registration.function):
            raise UsageError(f"target={name!r}, but should be a class of caches (see docs/caches.md)")
        for length in request.lengths:
            rates: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(request.runs):
                for kind, kv_heads in kinds.items():  # in turns, so that they share the noise
                    rates[kind].append(_rate(registration, heads, kv_heads, requests, length, request))
            for kind, kv_heads in kinds.items():
                table.append({
                    "cache": name, "kind": kind, "heads": heads, "kv heads": kv_heads, "requests": requests, "length": length,
                    "tokens/s": statistics.median(rates[kind]),
                    "over mha": statistics.median(rates[kind]) / statistics.median(rates["mha"]),
                    "cache MiB": requests * _bytes(kind, heads, kv_heads, length, request) / 2**20,
                })  # fmt: skip
                step(f"{name} {kind} at {length}", len(table), total)
    return table


def _bytes(kind: str, heads: int, kv_heads: int, length: int, request: Bench) -> int:
    dims = {"tokens": length, "heads": heads, "head_dim": request.width, "itemsize": FORMATS[request.dtype].dtype.itemsize}
    return kv_cache_bytes(kind, **dims, **({"kv_heads": kv_heads} if kind == "gqa" else {}))


def _rate(registration: Registration, heads: int, kv_heads: int, requests: int, length: int, request: Bench) -> float:
    """Tokens a second of all requests together, after prompts of a length."""
    rng, dtype = np.random.default_rng(0), FORMATS[request.dtype].dtype
    arrays = arrays_of(registration.implementation.backend, request.device)

    def drawn(tokens: int, count: int) -> Any:
        return arrays.of(rng.standard_normal((tokens, count, request.width), dtype=np.float32).astype(dtype))

    prompt = drawn(length, kv_heads)
    facts = {
        "num_kv_heads": kv_heads, "head_dim": request.width, "value_dim": request.width, "dtype": prompt.dtype,
        "device": getattr(prompt, "device", None), "max_requests": requests, "max_tokens": requests * (length + STEPS + 1),
    }  # fmt: skip
    wants = inspect.signature(registration.function).parameters
    cache = registration.function(**{fact: value for fact, value in facts.items() if fact in wants})
    for one in range(requests):
        cache.append(one, prompt, prompt)
    k, v, q = drawn(1, kv_heads), drawn(1, kv_heads), drawn(1, heads)
    cache.attend(dict.fromkeys(range(requests), q))
    started = time.perf_counter()
    for _ in range(STEPS):
        for one in range(requests):
            cache.append(one, k, v)
        cache.attend(dict.fromkeys(range(requests), q))
    return requests * STEPS / (time.perf_counter() - started)


study = Study(
    _run,
    "tokens/s: of all requests together, each with a prompt of so many tokens, the median of runs in turns; over mha: times as many as "
    "with a key/value head for every query head; cache MiB: keys and values of the prompts, without what pages round up",
)
