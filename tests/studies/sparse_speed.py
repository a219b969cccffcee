"""How much faster sparse attention is than standard attention of the same backend, and how both grow with the length.

    python tests/studies/sparse_speed.py

One head of width 64 in float32, a window of 64 and two global tokens. Times are the best of a few runs, taken in turns in
one process; memory is the peak that a call allocates, as tracemalloc sees NumPy's arrays.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import click
import numpy as np
import torch

from implementations.numpy.dense import standard as numpy_standard
from implementations.numpy.sparse import local_global as numpy_local_global
from implementations.torch.dense import standard as torch_standard
from implementations.torch.sparse import local_global as torch_local_global

LENGTHS = (1024, 2048, 4096, 8192)
WINDOW, GLOBAL_TOKENS = 64, [0, 4000]
RUNS = 5


def arguments(length: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, 1, length, 64), dtype=np.float32) for _ in "qkv"]


def best(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of the fastest run of each, the runs of all in turns."""
    seconds = dict.fromkeys(calls, np.inf)
    for _ in range(RUNS):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


def peak(call: Callable[[], object]) -> float:
    """MiB that NumPy allocates at most during a call."""
    tracemalloc.start()
    call()
    found = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return found


def main() -> None:
    torch.set_grad_enabled(False)
    heads = ["N", *(f"{backend} {what}" for backend in ("numpy", "torch") for what in ("standard, ms", "sparse, ms", "ratio")), "MiB"]
    click.echo(" | ".join(heads))
    before: dict[str, float] = {}
    for length in LENGTHS:
        arrays = arguments(length)
        tensors = [torch.from_numpy(array) for array in arrays]
        tokens = [token % length for token in GLOBAL_TOKENS]
        calls: dict[str, Callable[[], object]] = {
            "numpy standard": lambda arrays=arrays: numpy_standard(*arrays),
            "numpy sparse": lambda arrays=arrays, tokens=tokens: numpy_local_global(*arrays, window=WINDOW, global_tokens=tokens),
            "torch standard": lambda tensors=tensors: torch_standard(*tensors),
            "torch sparse": lambda tensors=tensors, tokens=tokens: torch_local_global(*tensors, window=WINDOW, global_tokens=tokens),
        }
        seconds = best(calls)
        memory = peak(calls["numpy standard"]), peak(calls["numpy sparse"])
        row = [f"{length:>6}"]
        for backend in ("numpy", "torch"):
            standard, sparse = seconds[f"{backend} standard"], seconds[f"{backend} sparse"]
            row.append(f"{standard * 1e3:>12.1f} ms {sparse * 1e3:>10.2f} ms {standard / sparse:>7.1f}")
        click.echo(" ".join([*row, f"{memory[0]:>7.1f} {memory[1]:>7.1f}"]))
        if before:
            click.echo(" doubling: " + ", ".join(f"{name} {seconds[name] / before[name]:.2f}" for name in seconds))
        before = seconds


if __name__ == "__main__":
    main()
