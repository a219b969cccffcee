"""Words that lines of probes share."""

from __future__ import annotations

from conformance.cases.values import SELECTING_GAIN

__all__ = ["EQUAL", "LONG", "OWN", "PLAIN", "STRIDED", "ahead"]

EQUAL = "q=zeros(0) k=normal(0)"  # all visible keys weigh the same
OWN = f"q=signs(0)*{SELECTING_GAIN:g} k=signs(0) v=bits(0) d=16"  # query i selects key i
PLAIN = "q=normal(0) k=normal(1) v=normal(2)"
STRIDED = ("transposed", "padded", "strided", "swapped")  # layouts with gaps or other orders of axes


def ahead(steps: int) -> str:
    """Query i selects key i + steps."""
    return OWN.replace("q=signs(0)", f"q=signs({steps})") if steps >= 0 else OWN.replace("k=signs(0)", f"k=signs({-steps})")


# Longer than what is drawn where queries are as many as keys.
LONG = f"{PLAIN} l=1040 s=1040 d=4"
