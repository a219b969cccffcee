"""How much faster linear attention is than standard attention of the same backend, and how both grow with the length.

    python tests/studies/linear_speed.py

One head of width 64 in float32. Times are the best of a few runs, taken in turns in one process; memory is the peak that a call
allocates, as tracemalloc sees NumPy's arrays.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import click
import numpy as np
import torch

from implementations.numpy.dense import standard as numpy_standard
from implementations.numpy.linear import chunked as numpy_linear
from implementations.numpy.linear import gated_parallel as numpy_gated
from implementations.torch.dense import standard as torch_standard
from implementations.torch.linear import chunked as torch_linear
from implementations.torch.linear import gated_einsum as torch_gated

LENGTHS = (1024, 2048, 4096, 8192)
RUNS = 7
KERNELS: dict[str, dict[str, Callable[..., object]]] = {
    "numpy": {"standard": numpy_standard, "scalar gated": numpy_gated, "causal, chunked": partial(numpy_linear, causal=True)},
    "torch": {"standard": torch_standard, "scalar gated": torch_gated, "causal, chunked": partial(torch_linear, causal=True)},
}


def best(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of the fastest run of each, the runs of all in turns."""
    seconds = dict.fromkeys(calls, np.inf)
    for _ in range(RUNS):
        for name, call in calls.items():
            for _ in range(1 if name == "standard" else 5):  # what is short is easily disturbed
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
    for backend, kernels in KERNELS.items():
        before: dict[str, float] = {}
        for length in LENGTHS:
            rng = np.random.default_rng(0)
            arrays = [rng.standard_normal((1, 1, length, 64), dtype=np.float32) for _ in "qkv"]
            given = arrays if backend == "numpy" else [torch.from_numpy(array) for array in arrays]
            calls = {name: partial(kernel, *given) for name, kernel in kernels.items()}
            seconds = best(calls)
            line = [f"{backend} N={length}:"]
            for name, took in seconds.items():
                ratio = "" if name == "standard" else f", {seconds['standard'] / took:.0f} times as fast"
                grown = f", {took / before[name]:.2f} times N/2" if before else ""
                memory = f", {peak(calls[name]):.2f} MiB" if backend == "numpy" else ""
                line.append(f"{name} {took * 1e3:.2f} ms{ratio}{grown}{memory};")
            click.echo(" ".join(line).rstrip(";"))
            before = seconds


if __name__ == "__main__":
    main()
