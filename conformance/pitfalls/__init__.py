"""Pitfalls: wrong meanings with a name, an explanation and a citation, each a variation of a method's specification.

A pitfall serves twice: diagnosis names it when it reproduces what a refuted implementation returns, and a certificate
lists it as ruled out when the executed cases would have exposed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from oracle.formats import FORMATS
from oracle.readings.contract import PrecisionContract

__all__ = ["Pitfall", "Setting", "declare", "pitfalls_for"]


@dataclass(frozen=True)
class Setting:
    """How the implementation computes: what a pitfall needs to know beyond the arguments.

    Attributes:
        dtype: storage dtype of the call, by name.
        working: NumPy dtype of the accumulation (float32, or float64 for float64), in which the pitfall runs.
        tunables: tile sizes of the case, where the implementation has any.
        layouts: by array, if it is not contiguous, its layout and the axis that this repeats: the last two arguments of
            `conformance.cases.layouts.lay_out`. The arguments themselves are contiguous.
        contract: under which the call is judged; None where any precision narrower than usual is a mistake.
    """

    dtype: str
    working: np.dtype
    tunables: Mapping[str, int]
    layouts: Mapping[str, tuple[str, int | None]] = field(default_factory=dict)
    contract: PrecisionContract | None = None

    @property
    def half(self) -> bool:
        """Whether arguments are stored in 16 bits and sums are not: to round a sum to 16 bits is a mistake."""
        return FORMATS[self.dtype].is_half and not (self.contract is not None and self.contract.accumulate.is_half)

    @property
    def narrow_state(self) -> bool:
        """Whether a recurrence may keep its state in fewer bits than it computes in."""
        return self.contract is not None and self.contract.state > 0


@dataclass(frozen=True)
class Pitfall:
    """A wrong meaning.

    Attributes:
        name: short, with hyphens: ``mask-then-normalise``.
        methods: names of the methods that it is a mistake in.
        explanation: one or two sentences: what goes wrong, and what it looks like.
        citation: a paper or a public report.
        run: (arguments by name, arrays in the working dtype; setting) -> outputs, in the order of the method's signature,
            or None where the mistake does not apply to this call (an option it needs is absent).
        variants: tile sizes to try where the mistake depends on one that the case does not tell; () for none.
        output: the only output in which it shows for certain, which an implementation may leave out; "" for no such thing.
        shows: of the same arguments, whether the mistake applies to this call, where that is known for less than what it returns.
    """

    name: str
    methods: tuple[str, ...]
    explanation: str
    citation: str
    run: Callable[[Mapping[str, Any], Setting], tuple[np.ndarray, ...] | None]
    variants: tuple[int, ...] = ()
    output: str = ""
    shows: Callable[[Mapping[str, Any], Setting], bool] | None = None


_PITFALLS: dict[tuple[str, str], Pitfall] = {}

# Modules of this package that declare pitfalls; one for each family.
_FAMILIES = (
    "logits", "masking", "windows", "softmax", "heads", "tiled", "documents", "memory", "merging", "sparse", "patterns", "blocks",
    "linear", "sums", "gates", "random_features", "chunked", "low_rank", "polynomial", "polynomial_weights", "gated", "delta",
    "native_sparse_choice", "native_sparse_reads", "native_sparse_gates", "differential", "differential_maps", "head_norm", "latent",
    "served", "paged", "varlen", "append", "rotary",
    "routing", "routing_choice", "load_balance", "capacity", "decoding", "sampling", "several_tokens", "experts", "depths", "group_experts",
    "cache_pages", "cache_reads", "ring", "blockwise",
    "quantisation", "quantisation_sharing", "dequantisation", "microscaling", "microscaling_read", "low_precision_scales",
    "low_precision_forms",
)  # fmt: skip


def declare(pitfall: Pitfall) -> None:
    """Add a pitfall to the catalogue, once for each of its methods."""
    for method in pitfall.methods:
        if (method, pitfall.name) in _PITFALLS:
            raise ValueError(f"pitfall {pitfall.name!r} of {method} is declared twice")
        _PITFALLS[method, pitfall.name] = pitfall


def pitfalls_for(method: str) -> tuple[Pitfall, ...]:
    """The pitfalls of a method, in order of declaration."""
    for family in _FAMILIES:
        import_module(f"conformance.pitfalls.{family}")
    return tuple(pitfall for (owner, _), pitfall in _PITFALLS.items() if owner == method)
