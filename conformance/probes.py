"""Probes: a fixed list of small cases whose right answer is known and whose wrong one tells what was read instead.

Values that are codes make an output legible. ``bits``: each row of v is its own number in binary, so where logits select
one key (``signs`` in q and k) the output says which one was read. ``one_hot``: the output is the weights themselves.
``ones``: it is their sum. With q = 0 all weights are equal. The oracle judges a probe as it does every case; `reading`
adds to a finding what the output says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from conformance.cases.case import Case, parse_case
from conformance.cases.values import SELECTING_GAIN
from conformance.invariants import DENSE, MERGE
from conformance.judge import Judgement, compare
from conformance.probes_quantised import QUANTISED_PROBES
from conformance.registry import Implementation
from conformance.serving_probes import SERVING_PROBES
from oracle import get_method
from oracle.readings import EXACT_KINDS, Expected

__all__ = ["listed_case", "probe_cases", "read", "reading", "taken_by"]

EQUAL = "q=zeros(0) k=normal(0)"  # all visible keys weigh the same
OWN = f"q=signs(0)*{SELECTING_GAIN:g} k=signs(0) v=bits(0) d=16"  # query i selects key i


def _ahead(steps: int) -> str:
    """Query i selects key i + steps."""
    return OWN.replace("q=signs(0)", f"q=signs({steps})") if steps >= 0 else OWN.replace("k=signs(0)", f"k=signs({-steps})")


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
    f"l=5 s=40 causal=True {_ahead(35)}",
    f"l=40 s=40 causal=True window=(3,0) {_ahead(-3)}",
    f"l=40 s=40 causal=True window=(3,0) {_ahead(-4)}",
    f"l=40 s=40 window=(2,2) {_ahead(2)}",
    f"l=5 s=33 h=7 g=1 {OWN}",
    f"b=2 l=9 s=17 h=14 g=2 causal=True {OWN}",
    f"b=3 l=4 s=18 h=6 g=3 {OWN}",
    f"l=1 s=257 {_ahead(256)}",
    f"l=2 s=1025 {_ahead(1023)}",
    f"b=3 l=1 s=129 h=6 g=2 {_ahead(128)}",
    f"l=1 s=129 causal=True window=(3,0) {_ahead(125)}",
    "b=2 l=1 s=80 h=2 g=2 d=16 q=normal(0) k=normal(1) v=bits(0) mask=single_key(1)",
    "l=12 s=33 h=2 g=2 d=16 q=normal(0) k=normal(1) v=bits(0) mask=single_key(0)",
    # Four layouts of the same arguments, whose gaps hold NaN; the last two after another call.
    *(
        f"b=2 l=9 s=33 h=2 g=2 d=16 q=signs(0)*{SELECTING_GAIN:g}@{layout} k=signs(0)@{layout} v=bits(0)@{layout} {calls}"
        for layout, calls in (
            ("transposed", ""), ("padded", ""), ("strided", ""), ("swapped", ""), ("strided", "calls=warm"), ("transposed", "calls=warm"),
        )
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

# Longer than what is drawn where queries are as many as keys.
LONG = "q=normal(0) k=normal(1) v=normal(2) l=1040 s=1040 d=4"

# Which keys a sparse method reads, and how many times; then how many of them it can list, and how far away.
SPARSE_PROBES = {
    "local_global_attention": (
        f"l=33 s=33 d=33 window=3 global_tokens=(20,2,20) {EQUAL} v=one_hot(0)",
        f"l=40 s=40 d=40 window=2 global_tokens=(3,39) causal=True {EQUAL} v=one_hot(0)",
        f"l=33 s=33 d=33 window=2 global_tokens=(3,17) global_rows=False {EQUAL} v=one_hot(0)",
        f"l=33 s=33 d=33 window=2 global_tokens=(3,17) global_self=False {EQUAL} v=one_hot(0)",
        f"l=130 s=130 window=2 global_tokens=(0,) h=4 g=2 {_ahead(2)}",
        f"l=150 s=150 d=150 window=1 global_tokens={str(tuple(range(1, 147, 2))).replace(' ', '')} {EQUAL} v=one_hot(0)",
        f"window=3 global_tokens=(1,700,1038) {LONG}",
    ),
    "strided_attention": (
        f"l=33 s=33 d=33 stride=4 {EQUAL} v=one_hot(0)",
        f"l=130 s=130 d=130 stride=16 {EQUAL} v=one_hot(0)",
        f"l=97 s=97 stride=32 h=4 g=2 {_ahead(-64)}",
        f"stride=7 {LONG}",
    ),
    "fixed_attention": (
        f"l=33 s=33 d=33 stride=4 {EQUAL} v=one_hot(0)",
        f"l=45 s=45 d=45 stride=8 c=3 {EQUAL} v=one_hot(0)",
        f"stride=7 c=2 {LONG}",
    ),
    "bigbird_attention": (
        f"l=45 s=45 d=45 block_size=4 window_blocks=3 global_blocks=1 r=2 {EQUAL} v=one_hot(0) random_blocks=integers(0)",
        f"l=66 s=66 d=66 block_size=8 window_blocks=1 global_blocks=2 r=2 {EQUAL} v=one_hot(0) random_blocks=distinct(1)",
        f"l=33 s=33 d=33 block_size=16 window_blocks=3 global_blocks=0 r=1 {EQUAL} v=one_hot(0) random_blocks=last(0)",
        f"block_size=8 window_blocks=7 global_blocks=5 r=5 random_blocks=distinct(2) {LONG}",
    ),
    "block_sparse_attention": (
        f"b=2 h=2 g=2 l=18 s=35 d=35 block_q=4 block_k=8 {EQUAL} v=one_hot(0) block_mask=random(1)",
        f"l=33 s=33 d=33 block_q=16 block_k=16 causal=True {EQUAL} v=one_hot(0) block_mask=full(0)[1,1,m,n]",
        f"block_q=16 block_k=8 block_mask=random(3) {LONG}",
    ),
    "pattern_attention": (
        f"l=33 s=33 d=33 pattern=skewed:4 {EQUAL} v=one_hot(0)",
        f"l=20 s=37 d=37 pattern=behind:3 {EQUAL} v=one_hot(0)",
        f"l=40 s=40 d=40 pattern=rows:2 {EQUAL} v=one_hot(0)",
        f"pattern=skewed:12 {LONG}",
    ),
}  # fmt: skip
# Of zeros all features are alike: which keys count, around chunks, and what they add up to with eps; then features far below one.
ALIKE = "q=zeros(0) k=zeros(0) v=one_hot(0)"
LINEAR_PROBES = {
    "linear_attention": (
        f"l=17 d=4 e=17 {ALIKE}",
        f"l=145 d=8 e=145 {ALIKE}",
        f"l=33 d=4 e=33 causal=True {ALIKE}",
        f"l=131 d=2 e=131 causal=True {ALIKE}",
        f"b=2 l=5 h=3 d=3 e=5 causal=True eps=1.0 {ALIKE}",
        "l=33 d=8 e=4 q=normal(0) k=negative(1)*3 v=normal(2)",
        "l=33 d=8 e=4 q=negative(0)*3 k=normal(1) v=normal(2)",
    ),
    "scalar_gated_linear_attention": (
        f"l=17 d=4 e=17 {ALIKE}",
        f"l=145 d=8 e=145 {ALIKE}",
        f"b=2 l=5 h=3 d=3 e=5 eps=1.0 {ALIKE}",
        "l=9 d=3 e=4 q=normal(0) k=negative(1) v=normal(2)",
        "l=9 d=16 e=4 q=normal(0) k=last(1)*10 v=normal(2)",
        "l=9 d=2 e=4 feature_map=elu+1 q=negative(0)*3 k=normal(1) v=normal(2)",
    ),
    "performer_attention": (
        f"l=17 d=4 e=17 m=8 projection=normal(3) {ALIKE}",
        f"l=5 d=4 e=5 m=8 eps=1.0 projection=normal(3) {ALIKE}",
        f"l=131 d=4 e=131 m=8 causal=True projection=normal(3) {ALIKE}",
        "l=9 d=16 e=4 m=8 q=normal(0) k=normal(1)*3 v=normal(2) projection=normal(3)*10",
        "l=9 d=16 e=4 m=8 q=normal(0)*3 k=normal(1) v=normal(2) projection=normal(3) eps=1e-12",
    ),
    # Projections that select: plain attention over equally weighed keys.
    "linformer_attention": (
        "l=3 s=33 d=4 w=33 p=33 q=zeros(0) k=normal(0) v=one_hot(0) e=one_hot(0) f=one_hot(0)",
        "l=3 s=145 d=4 w=145 p=145 q=zeros(0) k=normal(0) v=one_hot(0) e=one_hot(0) f=one_hot(0)",
        "b=2 l=5 s=17 h=3 d=8 w=4 p=4 q=normal(0)*30 k=normal(1) v=normal(2) e=normal(3) f=normal(4)",
    ),
    "chebyshev_attention": (
        f"l=3 s=33 d=4 e=33 degree=3 domain=(-1.0,1.0) {EQUAL} v=one_hot(0)",
        f"l=3 s=145 d=4 e=145 degree=0 domain=(-1.0,1.0) {EQUAL} v=one_hot(0)",
        "l=5 s=33 d=4 e=33 degree=2 domain=(-10.0,0.0) q=normal(0)*10 k=normal(1) v=one_hot(0)",
        "l=5 s=33 d=4 e=33 degree=4 domain=(-2.0,1.0) q=normal(0)*3 k=normal(1) v=one_hot(0)",
    ),
}

# Which blocks are chosen: of equal ones (2, 4, 8 and 16 compressed blocks weigh exactly the same), and of one that stands out.
FINE = "compress_block=2 compress_stride=2 select_block=2"
COARSE = "compress_block=4 compress_stride=2 select_block=8"
NATIVE_SPARSE_PROBES = (
    f"l=37 s=37 d=37 {FINE} select_count=2 window=1 {EQUAL} v=one_hot(0) gates=ones(0)",
    f"b=2 l=33 s=33 d=33 h=4 g=2 {FINE} select_count=1 window=3 {EQUAL} v=one_hot(0) gates=fractions(0)",
    f"l=45 s=45 d=45 {COARSE} select_count=2 window=5 {EQUAL} v=one_hot(0) gates=fractions(1)",
    f"l=66 s=66 {COARSE} select_count=1 window=4 h=4 g=2 {_ahead(-20)} gates=fractions(2)",
    f"l=40 s=40 {FINE} select_count=1 window=2 h=2 g=2 {_ahead(-6)} gates=ones(0)",
    # As in the paper, but for the length.
    "l=300 s=300 d=4 e=3 compress_block=32 compress_stride=16 select_block=64 select_count=2 window=100 "
    "q=normal(0)*4 k=normal(1) v=normal(2) gates=fractions(3)",
    "l=150 s=150 h=2 d=4 e=3 compress_block=8 compress_stride=4 select_block=8 select_count=16 window=33 "
    "q=normal(0)*4 k=normal(1) v=normal(2) gates=fractions(3)",
)  # fmt: skip
# Of two maps with equal weights, and of one that selects a key; then two maps that are alike, of which nothing is to be left.
MAPS = "q1=zeros(0) k1=normal(0) q2=zeros(1) k2=normal(1)"
SELECTING = f"q1=signs(0)*{SELECTING_GAIN:g} k1=signs(0) q2=zeros(1) k2=normal(1)"
DIFFERENTIAL_PROBES = (
    f"l=3 s=17 d=17 lam=0.25 {MAPS} v=one_hot(0)",
    f"l=20 s=33 d=33 lam=0.5 causal=True {MAPS} v=one_hot(0)",
    f"l=33 s=20 d=20 lam=-0.5 causal=True {MAPS} v=one_hot(0)",
    f"l=3 s=33 d=33 lam=0.5 {MAPS} v=one_hot(0) v2=normal(1)",
    f"b=2 l=33 s=33 d=16 e=33 h=4 g=2 lam=0.3 causal=True {SELECTING} v=one_hot(0)",
    f"l=145 s=145 d=16 e=145 lam=0.7 {SELECTING} v=one_hot(0)",
    f"l=3 s=145 d=4 e=145 lam=1.0 {MAPS} v=one_hot(0)",
    f"l=5 s=33 d=4 e=8 lam=1.0 lam_init=0.8 {MAPS} v=normal(0)",
    "b=2 l=5 s=33 h=2 g=1 d=8 e=4 lam=0.999 q1=normal(0)*0.01 k1=normal(1) q2=normal(2)*0.01 k2=normal(3) v=normal(4)",
    "b=2 l=5 s=33 h=2 g=2 d=8 e=4 lam=0.4 lam_init=0.2 eps=1.0 q1=normal(0) k1=normal(1) q2=normal(2) k2=normal(3) v=normal(4)",
    "l=5 s=33 d=8 e=4 lam=0.5 q1=zeros(0) k1=normal(1) q2=offset(2)*400 k2=offset(3) v=normal(4)",
)  # fmt: skip

# The part with position selects a key, or the part without; weights that hand the latent row on as it is.
UNEXPANDED = "w_uk=one_hot(0) w_uv=one_hot(0)"
LATENT_PROBES = (
    f"l=3 s=17 d=8 r=4 c=17 e=17 q_nope=zeros(0) q_rope=zeros(1) c_kv=one_hot(0) k_rope=normal(1) {UNEXPANDED}",
    f"l=3 s=145 d=8 r=4 c=145 e=145 q_nope=zeros(0) q_rope=zeros(1) c_kv=one_hot(0) k_rope=normal(1) {UNEXPANDED}",
    f"b=2 l=20 s=33 d=8 r=4 c=33 e=33 causal=True q_nope=zeros(0) q_rope=zeros(1) c_kv=one_hot(0) k_rope=normal(1) {UNEXPANDED}",
    f"b=2 l=33 s=33 h=3 d=8 r=16 c=33 e=33 q_nope=zeros(0) q_rope=signs(0)*{SELECTING_GAIN:g} c_kv=one_hot(0) k_rope=signs(0) {UNEXPANDED}",
    "b=2 l=5 s=33 h=3 d=8 r=4 c=6 e=5 q_nope=normal(0) q_rope=normal(1) c_kv=normal(2) k_rope=normal(3) w_uk=normal(4) w_uv=normal(5)",
    "b=2 l=5 s=33 h=4 d=6 r=4 c=6 e=6 q_nope=normal(0) q_rope=normal(1) c_kv=normal(2) k_rope=normal(3) w_uk=normal(4) w_uv=normal(5)",
)
# All tokens go to one expert, which has as many as fill its tiles and one more, or one less.
EXPERT_PROBES = tuple(
    f"l={tokens} x=3 c=1 d=2 f=3 indices={expert}(0) hidden=normal(0) weights=fractions(1) w_in=normal(2) w_out=normal(3)"
    for tokens, expert in ((17, "zeros"), (33, "last"), (63, "zeros"), (65, "zeros"), (128, "last"), (129, "zeros"), (257, "zeros"))
)
PROBES = {
    **QUANTISED_PROBES,
    **dict.fromkeys(DENSE, DENSE_PROBES), **dict.fromkeys(MERGE, MERGE_PROBES), **SPARSE_PROBES, **LINEAR_PROBES,
    "native_sparse_attention": NATIVE_SPARSE_PROBES, "differential_attention": DIFFERENTIAL_PROBES, "latent_attention": LATENT_PROBES,
    "moe_layer": EXPERT_PROBES, **SERVING_PROBES,
}  # fmt: skip
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
    """A case from the part of its line that matters: batches and heads are 1 where not given, Dv is D, tunables are usual ones."""
    words = dict(word.split("=", 1) for word in line.split())
    given = {**{letter: "1" for letter in get_method(implementation.method).signature.dims if letter in "bhg"}, **words}
    if "d" in given:
        given.setdefault("e", given["d"])
    case = parse_case(" ".join([implementation.method, dtype, *(f"{name}={value}" for name, value in given.items())]))
    tunables = {name: TILES.get(tunable.kind) or tunable.choices[0] for name, tunable in implementation.tunables.items()}
    return replace(case, tunables={**tunables, **(given_tunables or {})})


def read(judgement: Judgement) -> Judgement:
    """The judgement with what its outputs say, if it is a finding on a case with coded values."""
    if judgement.finding is None or not judgement.outputs or not judgement.wanted:
        return judgement
    said = reading(judgement.case, judgement.outputs[0], judgement.wanted[0])
    if not said:
        return judgement
    return replace(judgement, finding=replace(judgement.finding, reads=said))


def reading(case: Case, got: np.ndarray, wanted: Expected) -> str:
    """What wrong elements of the first output say about what was read; "" where nothing can be said.

    Args:
        case: the call.
        got: (B, H, L, Dv).
        wanted: the right answer, of that shape.
    """
    wrong = ~compare(got, wanted)[1]
    values = case.arrays.get(_values(case))
    if got.dtype.kind in EXACT_KINDS:
        return ""
    readers: dict[str, Callable[..., str]] = {"bits": _key, "one_hot": _weights, "ones": _sum}
    said = _gaps(case, got, wanted) or _leaked(case, got, wanted) or _hidden(case, got, wrong)
    chooses = ("q" in case.arrays and (case.specification.visible or case.specification.foreign)) or case.method in MERGE
    if not said and chooses and values is not None and wrong.any() and values.recipe in readers and values.gain == 1:
        said = readers[values.recipe](case, got.astype(np.float64), wanted, wrong.any(axis=-1))
    return said


def _values(case: Case) -> str:
    """Name of the array that the output is a combination of; "" where it is none by itself."""
    return next((name for name in ("outs", "v", "v_pages") if name in case.arrays), "")


# What the axes of an output and of values go through.
ROWS = {"b": "batch", "h": "head", "l": "query"}
VALUES = {
    "n": "part", "b": "batch", "g": "key/value head", "s": "key", "h": "head", "l": "row", "num_blocks": "block", "block_size": "offset",
}  # fmt: skip


def _query(case: Case, index: tuple[int, ...]) -> str:
    letters = case.specification.signature.outputs[0].dims[:-1]
    places = [(ROWS[letter], place, case.dims[letter]) for letter, place in zip(letters, index, strict=True)]
    return ", ".join(f"{name} {place}" for name, place, size in places if size > 1 or name == "query") or "query 0"


def _first(chosen: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(chosen)), chosen.shape))


def _decoded(rows: np.ndarray, count: int) -> np.ndarray:
    """The numbers that rows of binary digits stand for; -1 for a row that is no number of ``count``."""
    with np.errstate(invalid="ignore"):
        digits = np.where(np.abs(rows) < 0.25, 0, np.where(np.abs(rows - 1) < 0.25, 1, -1))
        number = (np.maximum(digits, 0).astype(np.int64) << np.minimum(np.arange(rows.shape[-1]), 62)).sum(axis=-1)
    return np.where((digits >= 0).all(axis=-1) & (number < count), number, -1)


def _key(case: Case, got: np.ndarray, wanted: Expected, wrong: np.ndarray) -> str:
    name = _values(case)
    letters, sizes = case.axes(name)[:-1], case.shape(name)[:-1]
    count, recipe = int(np.prod(sizes)), case.arrays[name]
    if recipe.seed or recipe.layout.startswith("expanded") or count > 1 << got.shape[-1]:
        return ""
    row_axis = next(letter for letter in ("s", "l", "block_size") if letter in letters)
    meant, was = _decoded(wanted.value.astype(np.float64), count), _decoded(got, count)

    def row(number: int, other: int) -> str:
        here, there = (np.unravel_index(max(one, 0), sizes) for one in (number, other))
        where = list(zip(letters, here, there, strict=True))
        told = [f"{VALUES[letter]} {a}" for letter, a, b in where if a != b or letter in (row_axis, "num_blocks")]
        return ", ".join(told)

    if (other := wrong & (was >= 0) & (meant >= 0) & (was != meant)).any():
        at = _first(other)
        return f"{_query(case, at)} read {row(was[at], meant[at])} where {row(meant[at], was[at])} was meant"
    if (alone := wrong & (was >= 0) & (meant < 0)).any():
        at = _first(alone)
        return f"{_query(case, at)} read {row(was[at], was[at])} alone where others were meant"
    if (mixed := wrong & (was < 0) & (meant >= 0)).any():
        at = _first(mixed)
        return f"{_query(case, at)} did not read {row(meant[at], meant[at])} alone, which was meant"
    return ""


def _weights(case: Case, got: np.ndarray, wanted: Expected, wrong: np.ndarray) -> str:
    if case.axes(_values(case)) not in (("b", "g", "s", "e"), ("b", "h", "l", "e")):
        return ""
    recipe, keys = case.arrays["v"], case.dims.get("s", case.dims["l"])
    if keys > got.shape[-1]:
        return ""
    at = _first(wrong)
    columns = (np.arange(keys) + recipe.seed) % got.shape[-1]
    weights, right, allowed = (np.broadcast_to(x, got.shape)[at][columns] for x in (got, wanted.value, wanted.budget))
    if not np.isfinite(weights).all():
        return ""
    told = []
    for word, chosen in (
        ("did not read", (np.abs(right) > allowed) & (np.abs(weights) <= allowed)),
        ("read, though hidden,", (right == 0) & (np.abs(weights) > allowed)),
    ):
        if chosen.any():
            listed = [str(key) for key in np.flatnonzero(chosen)[:4]]
            told.append(f"{word} key {', '.join(listed)}{', ...' if chosen.sum() > 4 else ''}")
    total, meant = f"{weights.sum():.6g}", f"{float(right.sum()):.6g}"
    if total != meant:
        told.append(f"its weights add up to {total} instead of {meant}")
    return f"{_query(case, at)}: {'; '.join(told)}" if told else ""


def _sum(case: Case, got: np.ndarray, wanted: Expected, wrong: np.ndarray) -> str:
    at = _first(wrong)
    total, right = float(got[at][0]), float(np.broadcast_to(wanted.value, got.shape)[at][0])
    return f"{_query(case, at)}: its weights add up to {total:.6g} instead of {right:.6g}" if np.isfinite(total) else ""


def _gaps(case: Case, got: np.ndarray, wanted: Expected) -> str:
    """NaN that can only come from the memory between the rows of an argument."""
    gapped = [name for name, recipe in case.arrays.items() if recipe.layout in ("strided", "padded")]
    # The harness fills the free pages of a cache with NaN.
    poisoned = case.specification.subject == "cache" or any(recipe.garbage == "nan" for recipe in case.arrays.values())
    if not gapped or poisoned or not (np.isnan(got) & np.isfinite(wanted.value)).any():
        return ""
    return f"the only NaN among the arguments lies between the rows of {', '.join(gapped)}"


def _leaked(case: Case, got: np.ndarray, wanted: Expected) -> str:
    """NaN that can only come from what belongs to others."""
    filled = [name for name, recipe in case.arrays.items() if recipe.garbage == "nan"]
    if not filled or not (np.isnan(got) & np.isfinite(wanted.value)).any():
        return ""
    if not all(np.isfinite(array).all() for array in case.without_garbage().arguments().values() if isinstance(array, np.ndarray)):
        return ""
    return f"the only NaN among the arguments lies in {', '.join(filled)}, where nothing may read"


def _hidden(case: Case, got: np.ndarray, wrong: np.ndarray) -> str:
    """Numbers larger than any value that may be read."""
    filled = [name for name, recipe in case.arrays.items() if recipe.garbage == "garbage"]
    if not filled or not wrong.any():
        return ""
    values = case.without_garbage().arguments()[_values(case)].astype(np.float64)
    with np.errstate(invalid="ignore"):
        beyond = np.abs(got.astype(np.float64)) > 2 * np.abs(values).max(initial=0.0)
    return f"only in {', '.join(filled)}, where nothing may read, are numbers that large" if (beyond & wrong).any() else ""
