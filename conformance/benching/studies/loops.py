"""FlashAttention's loop orders, keys outside (Dao et al. 2022, algorithm 1) and queries outside (Dao 2023, algorithm 1).

With queries outside, tiles of queries depend on nothing and can be shared out among threads; with keys outside every tile of keys
changes the state of every query.
"""

from __future__ import annotations

import os
import statistics
from importlib.util import find_spec

from conformance.benching.measuring import Kernel, Step, measured
from conformance.benching.run import Bench
from conformance.benching.studies import Study, Table
from conformance.errors import UsageError

__all__ = ["study"]

ORDERS = {"flash": "keys outside", "flash2": "queries outside"}
TILES = (64, 128, 256)


def _run(request: Bench, step: Step) -> Table:
    backends = [name for name in ("numpy", "torch") if find_spec(name) is not None and request.backend in (None, name)]
    if not backends:
        raise UsageError(f"backend={request.backend!r}, but should be numpy or torch, and installed")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kernels = {
        f"{backend} {order} {tile}": Kernel(f"{backend} {order} {tile}", f"{backend}.{order}", "attention", backend)
        for backend in backends
        for order in ORDERS
        for tile in TILES
    }
    threads = [request.threads] if request.threads else list(dict.fromkeys((1, cores)))
    table: Table = []
    for begun, count in enumerate(threads):

        def told(what: str, done: int, total: int, begun: int = begun, count: int = count) -> None:
            step(f"{what}, {count} threads", begun * total + done, len(threads) * total)

        rounds = [{name: _line(request, length, int(name.split()[2])) for name in kernels} for length in request.lengths]
        for number, found in enumerate(measured(list(kernels.values()), rounds, runs=request.runs, threads=count, step=told)):
            backend, order, tile = found["name"].split()
            seconds = statistics.median(found["seconds"]) if found["seconds"] else None
            table.append({
                "backend": backend, "loop": ORDERS[order], "tile": int(tile), "threads": count,
                "length": request.lengths[number // len(kernels)], "ms": None if seconds is None else seconds * 1e3,
            })  # fmt: skip
    return _compared(table)


def _line(request: Bench, length: int, tile: int) -> str:
    sizes = f"b={request.batch} h={request.heads} g={request.kv_heads} l={length} s={length} d={request.width} e={request.width}"
    return f"attention {request.dtype} {sizes} q=normal(0) k=normal(1) v=normal(2) block_q={tile} block_k={tile}"


def _compared(table: Table) -> Table:
    """Beside every time, how many times as fast it is as the first loop order with one thread, and as itself with one."""
    times = {tuple(row[name] for name in ("backend", "loop", "tile", "threads", "length")): row["ms"] for row in table}
    fewest = min(row["threads"] for row in table)
    for row in table:
        other = times[row["backend"], "keys outside", row["tile"], row["threads"], row["length"]]
        alone = times[row["backend"], row["loop"], row["tile"], fewest, row["length"]]
        row["over keys outside"] = other / row["ms"] if other and row["ms"] else None
        row["over fewest threads"] = alone / row["ms"] if alone and row["ms"] else None
    return table


study = Study(
    _run,
    "tile: of queries and of keys; ms: median of a call, all in turns for each number of threads; over keys outside: times as fast as the "
    "other loop order with as many threads; over fewest threads: as fast as itself with the fewest threads",
)
