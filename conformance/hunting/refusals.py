"""What an implementation refuses: shapes that its method lets it do without, on which it raises an exception.

An implementation may lack an option, which its signature tells; whether it takes grouped heads, say, only a call tells. It
is then certified under that restriction, and the certificate says so. A wrong answer is no refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from conformance.cases.case import Case
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.judge import Judgement
from conformance.registry import Implementation
from oracle import get_method
from oracle.conditions import holds

__all__ = ["refused", "simplest_case"]

# Cases that are looked at for one with several of everything.
DRAWS = 100


def simplest_case(
    implementation: Implementation, dtype: str, rng: Random, condition: str = "True", holding: bool = True
) -> Case | None:  # fmt: skip
    """A plain call with several of everything and nothing that could be left out; None where restrictions exclude it.

    Args:
        implementation, dtype: whose call.
        rng: source of random choices.
        condition: on the dimensions.
        holding: whether the condition is to hold.
    """
    method = get_method(implementation.method)
    # Some restrictions, such as lengths that divide among processes, leave hardly anything to the small stage.
    for stage in [stage for stage in STAGES[:2] for _ in range(DRAWS)]:
        case = random_case(rng, implementation, dtype, stage).plain()
        required = {spec.name: case.arrays[spec.name] for spec in method.signature.required}
        options = {name: case.options[name] for name in method.required_keywords if name in case.options}
        bare = replace(case, arrays=required, options=options)
        case = bare if bare.consistent else case  # some methods need one of several options
        several = case.consistent and min(case.dims.values(), default=2) > 1
        if several and implementation.admits(case.facts()) and holds(condition, case.dims) == holding:
            return case
    return None


def refused(implementation: Implementation, dtype: str, examine: Callable[[Case], Judgement]) -> dict[str, str]:
    """Restrictions under which the implementation works, with reasons: it raises without them and not with them."""
    restrictions = {}
    for condition, words in get_method(implementation.method).refusable.items():
        rng = Random(f"refusals {condition}")
        beyond = simplest_case(implementation, dtype, rng, condition, holding=False)
        within = simplest_case(implementation, dtype, rng, condition)
        if beyond is None or within is None:
            continue
        finding, plain = examine(beyond).finding, examine(within).finding
        if finding is not None and finding.kind == "exception" and (plain is None or plain.kind != "exception"):
            restrictions[condition] = f"it refuses {words}: {finding.message}"
    return restrictions
