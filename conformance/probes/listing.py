"""Which probes a hunt of an implementation opens with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from conformance.cases.case import Case
from conformance.cases.lines import parse_case
from conformance.invariants import DENSE, MERGE
from conformance.probes.dense import DENSE_PROBES, MERGE_PROBES, TUNABLE_PROBES, TUNABLE_VALUES
from conformance.probes.linear import LINEAR_PROBES
from conformance.probes.maps import MAP_PROBES
from conformance.probes.parallel import PARALLEL_PROBES
from conformance.probes.quantised import QUANTISED_PROBES
from conformance.probes.routing import ROUTING_PROBES
from conformance.probes.serving import SERVING_PROBES
from conformance.probes.sparse import SPARSE_PROBES
from conformance.registry import Implementation
from oracle import get_method

__all__ = ["listed_case", "probe_cases", "taken_by"]

PROBES = {
    **dict.fromkeys(DENSE, DENSE_PROBES),
    **dict.fromkeys(MERGE, MERGE_PROBES),
    **SPARSE_PROBES,
    **LINEAR_PROBES,
    **MAP_PROBES,
    **PARALLEL_PROBES,
    **ROUTING_PROBES,
    **SERVING_PROBES,
    **QUANTISED_PROBES,
}
TILES = {"block": 16, "count": 3}


def probe_cases(implementation: Implementation, dtype: str) -> Iterator[Case]:
    """The probes that an implementation's options and restrictions admit, always in the same order."""
    return taken_by(implementation, _listed(implementation, dtype))


def taken_by(implementation: Implementation, listed: Iterable[Case]) -> Iterator[Case]:
    """Those of some cases that an implementation's options and restrictions admit, each once."""
    seen = set()
    for case in listed:
        required = {spec.name for spec in case.specification.positional}
        taken = {*case.options, *case.arrays} - required <= set(implementation.options)
        if taken and implementation.admits(case.facts()) and str(case) not in seen:
            seen.add(str(case))
            yield case


def _listed(implementation: Implementation, dtype: str) -> Iterator[Case]:
    method = implementation.method
    for line in PROBES.get(method, ()):
        yield listed_case(line, implementation, dtype)
    for line in TUNABLE_PROBES if method in DENSE else ():
        case = listed_case(line, implementation, dtype)
        for name, tunable in implementation.tunables.items():
            for value in TUNABLE_VALUES.get(tunable.kind, tunable.choices):
                yield replace(case, tunables={**case.tunables, name: value})


def listed_case(line: str, implementation: Implementation, dtype: str, given_tunables: Mapping[str, int] | None = None) -> Case:
    """A case from the part of its line that matters: batches and heads are 1 where not given, Dv is D, tunables usual ones."""
    words = dict(word.split("=", 1) for word in line.split())
    given = {**{letter: "1" for letter in get_method(implementation.method).signature.dims if letter in "bhg"}, **words}
    if "d" in given and "e" in get_method(implementation.method).signature.dims:
        given.setdefault("e", given["d"])
    case = parse_case(" ".join([implementation.method, dtype, *(f"{name}={value}" for name, value in given.items())]))
    tunables = {name: TILES.get(tunable.kind) or tunable.choices[0] for name, tunable in implementation.tunables.items()}
    own = {name: value for name, value in case.tunables.items() if name in tunables and implementation.tunes({name: value})}
    case = replace(case, tunables={**tunables, **own, **(given_tunables or {})})
    return case if implementation.strided else case.contiguous()
