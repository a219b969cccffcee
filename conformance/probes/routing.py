"""Probes of routing: how many tokens an expert has."""

from __future__ import annotations

__all__ = ["ROUTING_PROBES"]

# All tokens go to one expert, which has as many as fill its tiles and one more, or one less.
EXPERT_PROBES = tuple(
    f"l={tokens} x=3 c=1 d=2 f=3 indices={expert}(0) hidden=normal(0) weights=fractions(1) w_in=normal(2) w_out=normal(3)"
    for tokens, expert in ((17, "zeros"), (33, "last"), (63, "zeros"), (65, "zeros"), (128, "last"), (129, "zeros"), (257, "zeros"))
)
ROUTING_PROBES = {"moe_layer": EXPERT_PROBES}
