"""Probes of linear and kernel attention: features that are all alike, and features far below one."""

from __future__ import annotations

from conformance.probes.vocabulary import EQUAL

__all__ = ["LINEAR_PROBES"]

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
