"""Long rows: a fixed list of cases of thousands of tokens for methods that carry a state from token to token.

A recurrence may go wrong after any number of chunks: a counter in a byte, a position in 16 bits, a state that is set back or
decayed once too often. Drawn cases reach a thousand tokens, because their heads, widths and gates vary; these are long and next
to nothing else. Sums of values of one sign stay large beside what rounding may do to them, so that they show a state that is
only slightly wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from conformance.cases.case import Case
from conformance.probes.listing import listed_case, taken_by
from conformance.probes.vocabulary import PLAIN
from conformance.registry import Implementation
from oracle.formats import FORMATS, Format

__all__ = ["long_cases"]

# 257 chunks of 16 tokens and one more.
LONGEST = 4113

# 131 chunks of 16 tokens and a few more, and a thousand and a few: where the oracle holds all weights at once.
LONG, LONGISH = 2100, 1100

SAME_SIGN = "q=offset(0) k=offset(1) v=offset(2)"
WITHIN_FLOAT16 = "q=normal(0)*0.1 k=normal(1)*0.1 v=offset(2)*0.1"
SHORT = "q=normal(0)*0.5 k=normal(1)*0.5"
REPLACING = "q=normal(0) k=units(1) v=offset(2)"

# Sizes of a chunk that many kernels could have: small, so that there are many chunks.
SMALL_CHUNK = 16

LONG_ROWS = {
    "gated_linear_attention": (
        f"l={LONGEST} d=2 e=2 {SAME_SIGN} g=slow_gates(3)",
        f"b=2 h=2 l={LONGISH} d=3 e=2 {PLAIN} g=log_gates(3) initial_state=normal(4)",
        f"h=2 l={LONG} d=1 e=3 {SAME_SIGN} g=mixed_gates(3)",
    ),
    "retention": (
        f"h=2 l={LONGEST} d=2 e=2 {SAME_SIGN} decay=decays(3)",
        f"b=2 h=2 l={LONGISH} d=3 e=2 {PLAIN} decay=short_decays(3) initial_state=normal(4)",
        f"h=2 l={LONG} d=1 e=3 {SAME_SIGN} decay=ones(0)",
    ),
    "delta_rule": (
        f"l={LONGEST} d=2 e=2 {REPLACING} beta=fractions(3)",
        f"b=2 h=2 l={LONGISH} d=3 e=2 {REPLACING} beta=fractions(3) initial_state=normal(4)",
    ),
    "gated_delta_rule": (
        f"l={LONGEST} d=2 e=2 {REPLACING} g=slow_gates(4) beta=fractions(3)",
        f"b=2 h=2 l={LONGISH} d=3 e=2 {REPLACING} g=log_gates(4) beta=fractions(3) initial_state=normal(4)",
    ),
    "linear_attention": (
        f"l={LONG} d=2 e=2 causal=True {WITHIN_FLOAT16}",
        f"h=2 l={LONGISH} d=2 e=3 causal=True {PLAIN}",
        f"h=2 l={LONGISH} d=2 e=3 {PLAIN}",
    ),
    "scalar_gated_linear_attention": (f"h=2 l={LONGISH} d=2 e=2 {PLAIN}",),
    "performer_attention": (
        f"l={LONG} d=2 e=2 m=3 causal=True {SHORT} v=offset(2) projection=normal(3)",
        f"h=2 l={LONGISH} d=2 e=3 m=3 causal=True {SHORT} v=normal(2) projection=normal(3)",
        f"h=2 l={LONGISH} d=2 e=3 m=3 {SHORT} v=normal(2) projection=normal(3)",
    ),
}

# Sums that begin with 1, and to which all tokens of a usual chunk add less than a rounding to 16 bits: a state that is kept in 16 bits
# from chunk to chunk stays what it was.
USUAL_CHUNK = 64
SMALL_TERMS = "q=ones(0) k=drop(12) v=drop({drop})"
SMALL_WEIGHTS = {
    "linear_attention": ("d=2 k=after_first(0)*-{gap}", "d=2 causal=True k=after_first(0)*-{gap}"),
    "scalar_gated_linear_attention": ("d=1 k=after_first(0)*-{gap}",),
    "performer_attention": tuple(f"d=1 m=1 projection=zeros(0) {options}k=after_first(0)*{{root}}" for options in ("", "causal=True ")),
}
LONG_SUMS = {
    "gated_linear_attention": (f"l={LONGEST} d=2 e=2 {SMALL_TERMS} g=zeros(0)",),
    "retention": (f"l={LONGEST} d=2 e=2 {SMALL_TERMS} decay=ones(0)",),
    "delta_rule": (f"l={LONGEST} d=1 e=2 {SMALL_TERMS} beta=ones(0)",),
    "gated_delta_rule": (f"l={LONGEST} d=1 e=2 {SMALL_TERMS} g=zeros(0) beta=ones(0)",),
    # With values that are all alike the numerator is such a sum, and so is the denominator; without the first value only this one.
    **{
        method: tuple(f"l={LONG} e=1 q=ones(0) v={values}(0) {line}" for line in lines for values in ("ones", "after_first"))
        for method, lines in SMALL_WEIGHTS.items()
    },
}


def _long_sums(method: str, form: Format) -> tuple[str, ...]:
    """The long sums of a format. What a token adds is one part in ``terms`` or less: 2^-12 2^-drop, or exp(-gap)."""
    terms = USUAL_CHUNK / form.unit_roundoff
    gap, drop = math.ceil(math.log(terms)), math.ceil(math.log2(terms)) - 11
    return tuple(line.format(gap=gap, root=math.sqrt(2 * gap), drop=drop) for line in LONG_SUMS.get(method, ()))


def long_cases(implementation: Implementation, dtype: str) -> Iterator[Case]:
    """The long rows that an implementation's options and restrictions admit, always in the same order, in small chunks."""
    chunks = {}
    for name, tunable in implementation.tunables.items():
        fitting = [value for value in tunable.choices if value >= SMALL_CHUNK]
        if tunable.kind == "choice" and fitting:
            chunks[name] = min(fitting)
    lines = LONG_ROWS.get(implementation.method, ())
    if FORMATS[dtype].is_half:
        lines += _long_sums(implementation.method, FORMATS[dtype])
    return taken_by(implementation, (listed_case(line, implementation, dtype, chunks) for line in lines))
