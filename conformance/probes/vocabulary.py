"""Words that lines of probes share."""

from __future__ import annotations

from conformance.cases.values import SELECTING_GAIN

__all__ = ["EQUAL", "LONG", "OWN", "SELECTING", "ahead"]

EQUAL = "q=zeros(0) k=normal(0)"  # all visible keys weigh the same
SELECTING = f"q=signs(0)*{SELECTING_GAIN:g} k=signs(0)"  # query i selects key i
OWN = f"{SELECTING} v=bits(0) d=16"  # and key i is told by its number


def ahead(steps: int) -> str:
    """Query i selects key i + steps."""
    return OWN.replace("q=signs(0)", f"q=signs({steps})") if steps >= 0 else OWN.replace("k=signs(0)", f"k=signs({-steps})")


# Longer than what is drawn where queries are as many as keys.
LONG = "q=normal(0) k=normal(1) v=normal(2) l=1040 s=1040 d=4"
