"""Pictures of the weights that a method gives to keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from conformance.errors import UsageError
from conformance.showing.weights import Weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "pyplot_or_error"]

# Pictures in one row.
ACROSS = 4

# The square root of a weight as its colour: among many keys the weights of most are small.
POWER = 0.5


def pyplot_or_error() -> Any:
    """Matplotlib's pyplot, for files and not for a screen.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise UsageError("pictures need matplotlib, but it should be installed first: pip install 'attest-attention[plots]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw(maps: Sequence[Weights], title: str, path: str) -> None:
    """Draw maps side by side into a file, whose suffix says in which format.

    Raises:
        UsageError: matplotlib is not installed, or the file cannot be written.
    """
    pyplot = pyplot_or_error()
    columns = min(len(maps), ACROSS)
    rows = -(-len(maps) // columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(4.6 * columns, 4.4 * rows + 0.6), layout="constrained", squeeze=False)
    for axes, one in zip(grid.flat, maps, strict=False):
        _draw_map(figure, axes, one)
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=10, wrap=True)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(f"picture {path!r} cannot be written: {error}") from None
    finally:
        pyplot.close(figure)


def _draw_map(figure: Any, axes: Axes, one: Weights) -> None:
    """White where a key has no weight at all, blue to yellow for weights; red and blue where some are negative."""
    from matplotlib.colors import PowerNorm, SymLogNorm

    shown = np.ma.masked_where(~np.isfinite(one.weights) | (one.weights == 0), one.weights)
    largest = float(np.abs(shown).max()) if shown.count() else 1.0
    signed = bool((shown < 0).any())
    if signed:
        norm: Any = SymLogNorm(largest / 10, vmin=-largest, vmax=largest)
    else:
        norm = PowerNorm(POWER, vmin=0.0, vmax=largest)
    picture = axes.imshow(shown, cmap="RdBu_r" if signed else "viridis", norm=norm, interpolation="nearest", aspect="auto")
    figure.colorbar(picture, ax=axes, shrink=0.85)
    axes.set_facecolor("#f4f4f4" if signed else "white")
    axes.set(title=one.title or "weights", xlabel=one.axes[1], ylabel=one.axes[0])
