"""The enclosure reading: object arrays of Arb balls (python-flint), which contain the exact result with certainty.

NumPy runs arithmetic on object arrays by calling the elements' own operators and methods (``exp``, ``log``, ``tanh``,
``sqrt``), so a specification in plain NumPy needs no change. Johansson 2017, Arb, IEEE Trans. Comput. 66(8), 1281.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np

__all__ = ["balls", "is_balls", "midpoints", "radii", "working_precision"]

PRECISION_BITS = 200


def _arb() -> type:
    try:
        from flint import arb
    except ImportError as missing:
        raise ImportError("the enclosure reading needs python-flint: pip install 'attest-attention[enclosure]'") from missing
    return arb


def working_precision() -> AbstractContextManager[object]:
    """A context manager under which Arb computes with enough bits for every float64 comparison."""
    _arb()
    from flint import ctx

    return ctx.workprec(PRECISION_BITS)


def balls(values: np.ndarray) -> np.ndarray:
    """Exact balls (radius 0) of an array of floats."""
    arb = _arb()
    flat = np.empty(values.size, dtype=object)
    flat[:] = [arb(float(x)) for x in values.ravel()]
    return flat.reshape(values.shape)


def is_balls(array: object) -> bool:
    """Whether an array holds balls rather than floats."""
    return isinstance(array, np.ndarray) and array.dtype == object


def midpoints(array: np.ndarray) -> np.ndarray:
    """The centres of the balls, rounded to float64."""
    return np.array([float(x.mid()) if hasattr(x, "mid") else float(x) for x in array.ravel()], dtype=np.float64).reshape(array.shape)


def radii(array: np.ndarray) -> np.ndarray:
    """Upper bounds on the radii of the balls, as float64."""
    return np.array([float(x.rad()) if hasattr(x, "rad") else 0.0 for x in array.ravel()], dtype=np.float64).reshape(array.shape)
