"""Pictures of a benchmark: time and memory by length on logarithmic scales, and error against speed at the longest."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.benching.run import Row
from conformance.errors import UsageError

__all__ = ["draw"]


def draw(rows: Sequence[Row], path: str) -> None:
    """Write three plots side by side to a file, whose suffix says in which format.

    Raises:
        UsageError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'attest-attention[plots]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (time, memory, accuracy) = pyplot.subplots(1, 3, figsize=(18, 6), layout="constrained")
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    for name, own in by_name.items():
        timed = [row for row in own if row.seconds]
        time.plot([row.length for row in timed], [row.seconds for row in timed], "o-", label=name)
        held = [row for row in own if row.peak_bytes]
        memory.plot([row.length for row in held], [(row.peak_bytes or 0) / 2**20 for row in held], "o-", label=name)
        last = own[-1]
        if last.speed and last.relative_error:
            accuracy.plot([last.speed], [last.relative_error], "o", label=name)
            accuracy.annotate(name, (last.speed, last.relative_error), fontsize=8, xytext=(4, 4), textcoords="offset points")
    for axes, across, up in (
        (time, "tokens", "seconds a call (median)"),
        (memory, "tokens", "MiB at most during a call"),
        (accuracy, "speed, standard attention of the same backend = 1", "relative error (Frobenius)"),
    ):
        axes.set(xscale="log", yscale="log", xlabel=across, ylabel=up)
        axes.grid(True, which="both", alpha=0.3)
    time.legend(fontsize=8)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"plot file {path!r} cannot be written: {error}") from None
    finally:
        pyplot.close(figure)
