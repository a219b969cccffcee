"""Probes of dense attention and of merging partial results: equal weights, one key each, layouts, masks, long rows."""

from __future__ import annotations

from conformance.cases.values import SELECTING_GAIN
from conformance.probes.vocabulary import EQUAL, OWN, STRIDED, ahead

__all__ = ["DENSE_PROBES", "MERGE_PROBES", "TUNABLE_PROBES", "TUNABLE_VALUES"]

# Width e is that of d, where not given.
DENSE_PROBES = (
    # Equal weights: which keys take part, and how many times.
    f"l=3 s=17 d=17 {EQUAL} v=one_hot(0)",
    f"l=1 s=33 d=33 {EQUAL} v=one_hot(0)",
    f"l=17 s=15 d=15 {EQUAL} v=one_hot(0)",
    f"l=33 s=33 d=33 causal=True {EQUAL} v=one_hot(0)",
    f"l=20 s=9 d=9 causal=True {EQUAL} v=one_hot(0)",
    f"l=4 s=31 d=31 causal=True {EQUAL} v=one_hot(0)",
    f"l=9 s=21 d=21 window=(2,3) {EQUAL} v=one_hot(0)",
    f"l=5 s=31 d=31 h=3 g=3 {EQUAL} v=one_hot(0) sinks=normal(0)",
    f"b=2 l=3 s=18 d=18 {EQUAL} v=one_hot(0) mask=padding_right(1)[b,1,1,s]",
    f"b=2 l=3 s=66 d=66 {EQUAL} v=one_hot(0) mask=late(0)",
    f"b=2 l=3 s=18 d=18 {EQUAL} v=one_hot(0) mask=first_full(1)",
    # Values of one: the weights add up to one, to n / (n + exp(sink)) with a sink, to nothing in an empty row.
    "l=5 s=47 d=8 q=normal(0) k=normal(1) v=ones(0)",
    "l=7 s=65 d=8 h=2 g=2 q=normal(0) k=normal(1) v=ones(0) sinks=normal(1)",
    "l=6 s=20 d=8 q=normal(0) k=normal(1) v=ones(0) mask=empty_rows(3)",
    # Logits that are capped and biased; that are all far below zero.
    "l=4 s=33 d=33 softcap=2.0 q=normal(0)*3 k=normal(1) v=one_hot(0) bias=normal(2)",
    "l=5 s=33 d=33 q=offset(0)*30 k=negative(0)*3 v=one_hot(0)",
    # One key each: which one is read. Around tiles, at the edges of what a query may see, across heads and batches.
    f"l=17 s=17 {OWN}",
    f"l=63 s=65 {OWN}",
    f"l=129 s=129 {OWN}",
    f"l=33 s=33 causal=True {OWN}",
    f"l=5 s=40 causal=True {ahead(35)}",
    f"l=40 s=40 causal=True window=(3,0) {ahead(-3)}",
    f"l=40 s=40 causal=True window=(3,0) {ahead(-4)}",
    f"l=40 s=40 window=(2,2) {ahead(2)}",
    f"l=5 s=33 h=7 g=1 {OWN}",
    f"b=2 l=9 s=17 h=14 g=2 causal=True {OWN}",
    f"b=3 l=4 s=18 h=6 g=3 {OWN}",
    f"l=1 s=257 {ahead(256)}",
    f"l=2 s=1025 {ahead(1023)}",
    f"b=3 l=1 s=129 h=6 g=2 {ahead(128)}",
    f"l=1 s=129 causal=True window=(3,0) {ahead(125)}",
    "b=2 l=1 s=80 h=2 g=2 d=16 q=normal(0) k=normal(1) v=bits(0) mask=single_key(1)",
    "l=12 s=33 h=2 g=2 d=16 q=normal(0) k=normal(1) v=bits(0) mask=single_key(0)",
    # Four layouts of the same arguments, whose gaps hold NaN; the last two after another call.
    *(
        f"b=2 l=9 s=33 h=2 g=2 d=16 q=signs(0)*{SELECTING_GAIN:g}@{layout} k=signs(0)@{layout} v=bits(0)@{layout} {calls}"
        for layout, calls in (*((layout, "") for layout in STRIDED), ("strided", "calls=warm"), ("transposed", "calls=warm"))
    ),
    "l=4 s=33 h=2 g=2 d=16 q=normal(0) k=normal(1)@expanded v=bits(0)@expanded mask=random(0)",
    # Huge numbers in what nothing may read.
    "l=4 s=24 d=16 causal=True window=(3,0) q=normal(0) k=normal(1)!garbage@padded v=bits(0)!garbage@strided",
    "b=2 l=3 s=34 d=16 q=normal(0) k=normal(1)!garbage v=bits(0)!garbage mask=padding_left(5)[b,1,1,s]",
    # A partial last tile of keys, whatever the tile, beside full tiles of queries; and with a softcap.
    "l=128 s=145 d=8 q=normal(0) k=normal(1) v=ones(0)",
    "l=3 s=145 d=8 softcap=2.0 q=normal(0) k=normal(1) v=normal(2)",
    # Masks of fewer axes where the first could be taken for the batch.
    f"b=3 l=4 s=17 d=17 h=3 g=3 {EQUAL} v=one_hot(0) mask=random(0)[h,l,s]",
    f"b=4 l=4 s=17 d=17 {EQUAL} v=one_hot(0) mask=random(0)[l,s]",
    # What differs between heads and sequences, in a long row.
    "b=2 l=1 s=528 d=4 h=2 g=2 q=normal(0) k=normal(1) v=normal(2) mask=random(0)",
    "b=2 l=1 s=528 d=4 h=4 g=2 q=normal(0) k=normal(1) v=normal(2) bias=normal(3)",
)  # fmt: skip

# Repeated for several values of every tunable.
TUNABLE_PROBES = (f"l=19 s=37 d=37 {EQUAL} v=one_hot(0)", f"l=35 s=35 causal=True {OWN}")
TUNABLE_VALUES = {"block": (1, 16, 64), "count": (1, 2, 7, 64)}

MERGE_PROBES = (
    "n=1 b=2 h=3 l=5 e=16 outs=bits(0) lses=normal(0)",
    "n=2 l=7 e=8 outs=ones(0) lses=normal(0)",
    "n=7 l=7 e=8 outs=ones(0) lses=normal(0)*100",
    "n=3 h=2 l=9 e=16 outs=bits(0)@strided lses=empty_parts(1)",
    "n=4 l=5 e=16 outs=bits(0) lses=zeros(0)",
)
