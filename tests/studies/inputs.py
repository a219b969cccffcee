"""Random inputs as tests of attention kernels draw them: normal numbers in a few shapes, perhaps with options.

plain: five calls without options, two sequences, four heads (grouped in every other call), 128 queries and keys, width 64.
options: five calls with odd lengths, in which each option that the kernel takes is on with probability 1/2.
long: the same with 4096 and more keys and few queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle import get_method
from oracle.formats import FORMATS

SETS = ("plain", "options", "long")
CALLS = 5


@dataclass(frozen=True)
class Call:
    """Arguments by name: arrays rounded to the storage dtype, and options."""

    method: str
    dtype: str
    arguments: dict[str, Any]

    def exact(self) -> tuple[np.ndarray, ...]:
        """What the method returns in float64."""
        outputs = get_method(self.method)(**self.arguments)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    @property
    def required(self) -> list[str]:
        return [spec.name for spec in get_method(self.method).signature.required]


def calls(which: str, method: str, dtype: str, options: Sequence[str], seed: int) -> list[Call]:
    """The five calls of a set for a kernel that takes these options."""
    make = _parts if method == "merge_attention_states" else _attention
    generators = [np.random.default_rng([seed, SETS.index(which), index]) for index in range(CALLS)]
    return [_stored(method, dtype, make(rng, which, index, options)) for index, rng in enumerate(generators)]


def _attention(rng: np.random.Generator, which: str, index: int, options: Sequence[str]) -> dict[str, Any]:
    batch, groups, heads, queries, keys, width, value_width = _sizes(rng, which, index)
    normal = rng.standard_normal
    arguments = {
        "q": normal((batch, heads, queries, width)),
        "k": normal((batch, groups, keys, width)),
        "v": normal((batch, groups, keys, value_width)),
    }
    mask_shape = [(batch, 1, queries, keys), (batch, 1, 1, keys), (queries, keys)][rng.integers(3)]
    drawn = {
        "mask": rng.random(mask_shape) < 0.8,
        "bias": normal((heads, queries, keys)),
        "causal": True,
        "window": [(keys // 4, 0), (16, 16), (64, None)][rng.integers(3)],
        "softcap": 20.0,
        "scale": 0.2,
        "sinks": normal(heads),
    }
    chosen = {name: value for name, value in drawn.items() if rng.random() < 0.5}
    if which == "plain":
        return arguments
    return arguments | {name: value for name, value in chosen.items() if name in options}


def _sizes(rng: np.random.Generator, which: str, index: int) -> tuple[int, ...]:
    if which == "plain":
        return 2, (4, 2)[index % 2], 4, 128, 128, 64, 64
    pick = lambda *choices: int(rng.choice(choices))  # noqa: E731
    width = pick(32, 40, 64, 80)
    if which == "long":
        return 1, 2, 2 * pick(1, 2), pick(1, 5, 16, 33), pick(4096, 4097, 5000, 6144, 8192), width, width
    groups, queries = pick(1, 2), pick(1, 17, 63, 100, 129, 200, 255)
    return pick(1, 2, 3), groups, groups * pick(1, 2, 3, 4), queries, pick(queries, 31, 65, 100, 129, 191, 300), width, width


def _parts(rng: np.random.Generator, which: str, index: int, options: Sequence[str]) -> dict[str, Any]:
    """Parts to merge; outside the plain set their statistics are spread, and the first part has no keys for some rows."""
    count = {"plain": 3, "options": int(rng.integers(1, 9)), "long": int(rng.integers(64, 129))}[which]
    shape = (count, 2, 4, 128 if which == "plain" else int(rng.choice([1, 17, 33, 63, 100, 129])))
    lses = rng.standard_normal(shape)
    if which != "plain":
        lses *= 4
        lses[0, ..., ::3] = -np.inf
    return {"outs": rng.standard_normal((*shape, 64)), "lses": lses}


def _stored(method: str, dtype: str, arguments: dict[str, Any]) -> Call:
    statistics = {spec.name for spec in get_method(method).signature.inputs if spec.kind == "statistic"}
    storage = FORMATS[dtype].dtype
    kept = {
        name: value.astype(np.float32 if name in statistics and FORMATS[dtype].is_half else storage)
        if isinstance(value, np.ndarray) and value.dtype != bool
        else value
        for name, value in arguments.items()
    }
    return Call(method, dtype, kept)
