"""Probes of attention over processes: which tokens a query reads, wherever these are, at lengths that do not divide among processes."""

from __future__ import annotations

from conformance.probes.vocabulary import EQUAL

__all__ = ["PARALLEL_PROBES"]

# Equal weights over one-hot values: the output lists the keys that were read.
SHARES = ((1, 4), (3, 4), (5, 2), (7, 3), (8, 4), (9, 4), (12, 3), (17, 4))
READ = tuple(
    f"l={length} s={length} d=4 e={length} {causal}{EQUAL} v=one_hot(0) world_size={world} zigzag={zigzag}"
    for length, world in SHARES
    for causal in ("causal=True ", "")
    for zigzag in (0, 1)
    if causal or not zigzag
)
PARALLEL_PROBES = {
    "ring_attention": (
        *READ,
        "b=2 h=4 g=2 l=11 s=11 d=8 e=4 causal=True q=signs(0)*30 k=signs(1) v=bits(0) world_size=3 zigzag=1",
        "l=33 s=33 d=4 e=4 causal=True q=normal(0)*30 k=normal(1) v=normal(2) world_size=4 zigzag=1",
    ),
    "blockwise_transformer": tuple(
        f"b=2 h=2 g=1 l={length} s={length} d=4 m=8 f=5 causal=True q=zeros(0) k=normal(0) v=normal(1) w_in=normal(2) w_out=normal(3) "
        f"activation={activation} world_size={world} zigzag={zigzag}"
        for (length, world), activation, zigzag in zip(SHARES, ("relu", "silu") * 4, (0, 1, 1, 0) * 2, strict=True)
    ),
}
