"""How fast flash attention can be beside standard attention here: prints the table of docs/bench.md.

    python tests/studies/roofline.py

Both make the same products and exponentials, and these alone take the time in the last columns, which no order of loops saves. What is
saved is the traffic of the matrix of logits, above all its memory, fresh from the system at each call: in pages of 4 KiB that takes
longer than all the arithmetic. NumPy asks for pages of 2 MiB; whether the system has any is luck, so both are measured.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

LENGTH, WIDTH, TILE, RUNS = 8192, 64, 256, 7
PR_SET_THP_DISABLE = 41  # <linux/prctl.h>
PAGES = ("2 MiB", "4 KiB")


def measured(threads: int, pages: str) -> dict[str, Any]:
    """Milliseconds in this process, whose environment says how many threads there are."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if pages == "4 KiB":
        ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    import numpy as np

    from implementations.numpy.dense import flash2, standard

    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 1, LENGTH, WIDTH)).astype(np.float32) for _ in range(3))
    rows, keys, values = q[0, 0], np.ascontiguousarray(k[0, 0].T), v[0, 0]
    logits, out = np.empty((TILE, LENGTH), np.float32), np.empty((TILE, WIDTH), np.float32)
    tile, weights = -np.abs(rng.standard_normal((TILE, TILE))).astype(np.float32), np.empty((TILE, TILE), np.float32)

    def products() -> None:
        for start in range(0, LENGTH, TILE):
            np.matmul(rows[start : start + TILE], keys, out=logits)
            np.matmul(logits, values, out=out)

    def exponentials() -> None:
        for _ in range((LENGTH // TILE) ** 2):
            np.exp(tile, out=weights)

    calls: dict[str, Callable[[], object]] = {
        "standard": lambda: standard(q, k, v), "flash2": lambda: flash2(q, k, v), "products": products, "exponentials": exponentials,
    }  # fmt: skip
    return {name: 1e3 * _seconds(call) for name, call in calls.items()}


def _seconds(call: Callable[[], object]) -> float:
    call()
    found = []
    for _ in range(RUNS):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return median(found)


def main() -> None:
    """A process for each row, as threads and pages are its own."""
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(measured(int(sys.argv[1]), sys.argv[2])))
        return
    lines = ["| threads | pages | standard, ms | flash2, ms | times | products, ms | exponentials, ms | times at most |", "|---" * 8 + "|"]
    for threads in range(1, len(os.sched_getaffinity(0)) + 1):
        for pages in PAGES:
            variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
            command = [sys.executable, __file__, str(threads), pages]
            row = json.loads(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout)
            least = row["products"] + row["exponentials"]
            numbers = " | ".join(f"{row[name]:.0f}" for name in ("standard", "flash2"))
            lines.append(
                f"| {threads} | {pages} | {numbers} | {row['standard'] / row['flash2']:.1f} | {row['products']:.0f} "
                f"| {row['exponentials']:.0f} | {row['standard'] / least:.1f} |"
            )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
