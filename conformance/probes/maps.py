"""Probes of differential and latent attention: equal weights, and of one key by either part of the logits."""

from __future__ import annotations

from conformance.cases.values import SELECTING_GAIN

__all__ = ["MAP_PROBES"]

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
MAP_PROBES = {"differential_attention": DIFFERENTIAL_PROBES, "latent_attention": LATENT_PROBES}
