"""Where the time of a hunt goes, and how long verdicts take: writes docs/speed.md.

    python tests/studies/speed.py

Run it on a quiet machine; the page states the load that it met. Parts can be run alone, to stdout: --part hunts.
"""

from __future__ import annotations

import cProfile
import os
import platform
import pstats
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import click
import numpy as np
from corpus import ROOT, WRONG, Hunter, kernels
from threadpoolctl import threadpool_limits

from conformance.certify import Request, implementations
from conformance.hunting.hunt import Effort, Hunt, HuntResult
from conformance.isolation.sandbox import Sandbox
from oracle import attention
from oracle.readings import budget
from oracle.readings.contract import CONTRACTS

HUNTED = (("numpy.flash2", "float32"), ("numpy.flash2", "bfloat16"), ("torch.sdpa", "float32"), ("torch.sdpa", "bfloat16"))
# (B, Hq, Hkv, Lq, Lk, D) of the calls on which the readings are timed.
TIMED = ((2, 4, 2, 9, 17, 8), (2, 4, 2, 129, 200, 64), (1, 8, 8, 256, 1024, 64), (1, 2, 1, 16, 8192, 128))


def rows(*lines: tuple[object, ...]) -> str:
    """A Markdown table: the first line is its head."""
    head, *body = lines
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (head, ["---", *["---:"] * (len(head) - 1)], *body))


class Stopwatch:
    """Adds up the time in a function that it wraps."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: object) -> None:
        started = time.perf_counter()
        self.function(*arguments)
        self.seconds += time.perf_counter() - started


def hunts() -> str:
    """Cases a second and shares of the time, for four hunts."""
    table = []
    for name, dtype in HUNTED:
        with Sandbox() as sandbox:
            [implementation] = sandbox.load(name)
            hunt = Hunt(implementation, dtype, sandbox, Effort(seed=0, diagnose=False))
            learn = hunt.adequacy.learn = Stopwatch(hunt.adequacy.learn)  # type: ignore[method-assign]
            result = hunt.run()
        shares = {**asdict(result.clock), "adequacy": learn.seconds}
        shares["rest"] = result.seconds - sum(shares.values())
        parts = [f"{100 * seconds / result.seconds:.0f} %" for seconds in shares.values()]
        pace = f"{result.examples / result.seconds:.0f}"
        table.append((f"{name} {dtype}", result.verdict, result.examples, f"{result.seconds:.1f}", pace, *parts))
    return rows(("hunt", "verdict", "cases", "seconds", "cases/s", *shares), *table)


def refutations() -> str:
    """Time and cases to the first finding of every wrong kernel of the corpus."""
    found: list[tuple[float, int, str]] = []
    missed = []
    with Hunter(Effort(seed=0, diagnose=False)) as hunter:
        for kernel in kernels(*WRONG):
            result = hunter.hunt(kernel)
            if result.seconds_to_finding is None:
                missed.append(kernel.name)
            else:
                found.append((result.seconds_to_finding, result.examples, kernel.name))
    seconds, cases = [took for took, _, _ in found], [count for _, count, _ in found]
    spread = []
    for name, of in (("seconds", seconds), ("cases", cases)):
        spread.append((name, *(f"{value:.2g}" for value in (median(of), quantiles(of, n=10)[-1], max(of)))))
    slowest = [(name, f"{took:.1f}", count) for took, count, name in sorted(found, reverse=True)[:10]]
    return "\n\n".join((
        f"{len(found)} wrong kernels refuted, missed: {', '.join(missed) or 'none'}.",
        rows(("to the first finding", "median", "90th percentile", "largest"), *spread),
        rows(("slowest", "seconds", "cases"), *slowest),
    ))  # fmt: skip


def certificates() -> str:
    """Time to certify each registered implementation in its first dtype."""
    table = []
    for implementation in implementations(Request())[0]:
        with Sandbox() as sandbox:
            [loaded] = sandbox.load(implementation.name)
            result = Hunt(loaded, loaded.dtypes[0], sandbox, Effort(seed=0)).run()
        seconds = (f"{took:.1f}" for took in (result.seconds, result.clock.kernel))
        table.append((f"{loaded.name} {loaded.dtypes[0]}", result.verdict, result.examples, *seconds))
    return rows(("implementation", "verdict", "cases", "seconds", "of them waiting for the kernel"), *table)


def readings() -> str:
    """The budget reading against the same specification on plain float64 arrays, and a textbook einsum, in turn."""
    table = []
    for b, h, g, queries, keys, width in TIMED:
        rng = np.random.default_rng(0)
        shapes = {"q": (b, h, queries, width), "k": (b, g, keys, width), "v": (b, g, keys, width)}
        arguments = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        bounded = partial(budget, attention, arguments, CONTRACTS["float32"])
        readers = (bounded, partial(attention, **arguments), partial(plain, **arguments))
        took = [float("inf")] * len(readers)
        for _ in range(7):
            for index, read in enumerate(readers):
                started = time.perf_counter()
                read()
                took[index] = min(took[index], time.perf_counter() - started)
        ms = [f"{1000 * seconds:.2f}" for seconds in took]
        table.append((f"({b}, {h}, {g}, {queries}, {keys}, {width})", *ms, f"{took[0] / took[1]:.1f}", f"{took[0] / took[2]:.1f}"))
    return rows(("(B, Hq, Hkv, Lq, Lk, D)", "budget, ms", "value, ms", "plain, ms", "budget / value", "budget / plain"), *table)


def plain(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """What somebody would write as a float64 reference."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    scores = q @ np.repeat(k, group, axis=1).swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights @ np.repeat(v, group, axis=1) / weights.sum(axis=-1, keepdims=True)


def profile() -> str:
    """The functions of the judge's process in which a hunt of numpy.flash2 in float32 spends its processor time; waiting costs none."""
    with Sandbox() as sandbox:
        [implementation] = sandbox.load("numpy.flash2")
        profiler = cProfile.Profile(time.process_time)
        result: HuntResult = profiler.runcall(Hunt(implementation, "float32", sandbox, Effort(seed=0, diagnose=False)).run)
    stats = pstats.Stats(profiler)
    total = sum(own for _, _, own, _, _ in stats.stats.values())  # type: ignore[attr-defined]
    costs = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:20]  # type: ignore[attr-defined]
    table = []
    for where, (_, calls, own, below, _) in costs:
        table.append((place(where), calls, f"{100 * own / total:.1f} %", f"{100 * below / total:.1f} %"))
    return f"{result.examples} cases.\n\n" + rows(("function", "calls", "own time", "with what it calls"), *table)


def place(where: tuple[str, int, str]) -> str:
    """A function by the last two parts of its file's path."""
    file, line, function = where
    return f"`{function}`" if file == "~" else f"`{'/'.join(Path(file).parts[-2:])}:{line} {function}`"


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "hunts": ("Hunts of right kernels", hunts),
    "refute": ("Time to refute", refutations),
    "certify": ("Time to certify", certificates),
    "oracle": ("The budget reading", readings),
    "profile": ("Costs of functions, under cProfile", profile),
}


@click.command(help=(__doc__ or "").replace("\n    python", "\n\n\b\n    python"))
@click.option("--part", "chosen", type=click.Choice(list(PARTS)), multiple=True, help="Only this part, to stdout; repeatable.")
@click.option("--output", default=str(ROOT / "docs" / "speed.md"), show_default=True)
def main(chosen: tuple[str, ...], output: str) -> None:
    load = os.getloadavg()[0]
    sections = []
    for name in chosen or PARTS:
        title, measure = PARTS[name]
        with threadpool_limits(limits=1, user_api="blas"):
            text = f"## {title}\n\n{(measure.__doc__ or '').strip()}\n\n{measure()}\n"
        sections.append(text)
        click.echo(text if chosen else f"{name} measured", err=not chosen)
    if not chosen:
        loads = f"load average {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"
        machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}, {loads}"
        Path(output).write_text(f"{PAGE.format(machine=machine)}\n" + "\n".join(sections), encoding="utf-8")


PAGE = """\
# How fast attest is

Written by `python tests/studies/speed.py`.
Measured on {machine}.
Above a load of 1 a machine does other things too: ratios and shares then hold better than seconds, and PyTorch, which runs two threads
on two busy cores, suffers most.

`making` is drawing and laying out a case's arrays, `oracle` the budget reading, `kernel` the wait for the worker beyond that (it
computes at the same time), `judging` the comparison, `adequacy` the known mistakes run on the same cases, `rest` everything else.
"""


if __name__ == "__main__":
    main()
