"""What a case hands to an implementation that is called in this process, without a worker that places and watches its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.cases.case import Case
from conformance.isolation.backends import Arrays
from conformance.isolation.codes import stored
from conformance.parameters import unset
from conformance.registry import Implementation

__all__ = ["direct_arguments", "spelt_out"]


def spelt_out(implementation: Implementation, case: Case) -> dict[str, Any]:
    """The options that the implementation wants to be given and that the case does not set."""
    return {name: unset(name, case.specification, case.dims) for name in implementation.explicit if name not in case.arrays}


def direct_arguments(
    implementation: Implementation, case: Case, given: Mapping[str, Any], arrays: Arrays
) -> tuple[list[Any], dict[str, Any]]:
    """Positional arguments and keywords of a call, with copies of its arrays as those of a backend.

    Args:
        implementation: what is called.
        case: the call.
        given: its arguments, by `Case.arguments`.
        arrays: of the backend.
    """
    keywords = {**spelt_out(implementation, case), **given, **case.tunables}
    for spec in (spec for spec in case.specification.signature.inputs if spec.name in given):
        form = case.code_format(spec)
        keywords[spec.name] = arrays.of(given[spec.name] if form is None else stored(given[spec.name], form))
    return [keywords.pop(spec.name) for spec in case.specification.positional], keywords
