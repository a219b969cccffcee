"""Experiments: each takes a claim and gives numbers that can be held against its figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from conformance.benching.measuring import Kernel, measured
from conformance.benching.studies.chebyshev import chebyshev_error
from conformance.benching.studies.speculative import simulated_tokens
from conformance.claims.declared import Claim, agrees
from conformance.claims.laboratory import Laboratory
from oracle import METHODS, attention
from oracle.cache_size import kv_cache_bytes
from oracle.decoding_speed import expected_tokens, speed_up

__all__ = ["EXPERIMENTS", "Measurement"]

# What a busy machine moves.
TIMES = ("speed", "doubling")

# Draws of an error, and the width of what is drawn.
SEEDS, WIDTH = 3, 64


@dataclass(frozen=True)
class Measurement:
    """One number.

    Attributes:
        what: it is of.
        value: itself, in the claim's unit; None where it could not be had.
        figure: what the claim says it is, where that differs from measurement to measurement.
        decides: whether the verdict rests on it; else it is there to be looked at.
        unit: where it is not the claim's.
        why: there is no value.
    """

    what: str
    value: float | None
    figure: str = ""
    decides: bool = True
    unit: str = ""
    why: str = ""


def _of_rows(laboratory: Laboratory, claim: Claim, quantity: str) -> list[Measurement]:
    found = []
    for name in claim.given["implementations"]:
        row = laboratory.row(name, laboratory.length(claim))
        value = None if row is None else getattr(row, quantity)
        why = "" if value is not None else "cannot run here" if row is None else row.error or "not measured on this machine"
        spread = "" if row is None or row.spread is None or quantity not in TIMES else f" (spread {row.spread:.0%})"
        found.append(Measurement(f"{name}{spread}", value, why=why))
    return found


def speed(laboratory: Laboratory, claim: Claim) -> list[Measurement]:
    """Times as fast as standard attention of the same backend."""
    return _of_rows(laboratory, claim, "speed")


def doubling(laboratory: Laboratory, claim: Claim) -> list[Measurement]:
    """Time over that at half the length."""
    return _of_rows(laboratory, claim, "doubling")


def kernel_error(laboratory: Laboratory, claim: Claim) -> list[Measurement]:
    """Relative error of kernels in the Frobenius norm."""
    return _of_rows(laboratory, claim, "relative_error")


def memory(laboratory: Laboratory, claim: Claim) -> list[Measurement]:
    """What an array takes, in both units that go by the name of MB, and what a call takes."""
    taken = int(claim.given["rows"]) * int(claim.given["columns"]) * np.dtype(np.float32).itemsize
    both = {"MiB (2^20 bytes)": taken / 2**20, "MB (10^6 bytes)": taken / 10**6}
    meant = next((unit for unit, value in both.items() if agrees(claim.means, claim.figure, value)), next(iter(both)))
    found = [Measurement("the array", value, decides=unit == meant, unit=unit) for unit, value in both.items()]
    if "implementation" in claim.given:
        row = laboratory.row(claim.given["implementation"], laboratory.length(claim))
        peak = None if row is None or row.peak_bytes is None else row.peak_bytes / 2**20
        why = "" if peak is not None else (row.error if row is not None else "") or "not measured on this machine"
        found.append(Measurement(f"peak of a call of {claim.given['implementation']}", peak, decides=False, unit="MiB", why=why))
    return found


def method_error(laboratory: Laboratory, claim: Claim) -> list[Measurement]:
    """Relative difference between a method and exact attention, both in float64, in the Frobenius norm."""
    length, found = laboratory.length(claim), []
    options = dict(claim.given["options"])
    if "global_tokens" in options:
        options["global_tokens"] = [position // laboratory.shrink for position in options["global_tokens"]]
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        q, k, v = (rng.standard_normal((1, 1, length, WIDTH)) for _ in range(3))
        exact = attention(q, k, v)
        error = float(np.linalg.norm(METHODS[claim.given["method"]](q, k, v, **options) - exact) / np.linalg.norm(exact))
        found.append(Measurement(f"{claim.given['method']}, seed {seed}", error))
    return found


def chebyshev(laboratory: Laboratory, claim: Claim) -> list[Measurement]:
    """Relative errors in per cent, by how far the logits reach."""
    return [
        Measurement(f"logits within {reach:g}", 100 * chebyshev_error(claim.given["degree"], reach)) for reach in claim.given["reaches"]
    ]


def latent_cache(laboratory: Laboratory, claim: Claim) -> list[Measurement]:
    """Bytes of a cache of multi-head attention over those of latent attention."""
    heads, width, latent, rope = (int(claim.given[name]) for name in ("heads", "head_dim", "latent_dim", "rope_dim"))
    both = kv_cache_bytes("mha", tokens=1, heads=heads, head_dim=width)
    return [
        Measurement("keys alone over the latent row", both / 2 / kv_cache_bytes("mla", tokens=1, latent_dim=latent, rope_dim=0)),
        Measurement("keys and values over the latent row", both / kv_cache_bytes("mla", tokens=1, latent_dim=latent, rope_dim=0)),
        Measurement(
            f"keys and values over the latent row and {rope} rotary elements",
            both / kv_cache_bytes("mla", tokens=1, latent_dim=latent, rope_dim=rope),
        ),
    ]


def speculative(laboratory: Laboratory, claim: Claim) -> list[Measurement]:
    """The claimed quotient, by the exact expectation of accepted tokens, against the theorem's speed-up."""
    drafted, found = int(claim.given["drafted"]), []
    for cost in claim.given["cost"]:
        for acceptance in claim.given["acceptance"]:
            tokens = expected_tokens(acceptance, drafted)
            exact = f"{speed_up(acceptance, drafted, cost):.2f}"
            found.append(Measurement(f"a = {acceptance}, c = {cost}, {drafted} drafted", tokens / (1 + drafted), figure=exact))
    for acceptance in claim.given["acceptance"]:
        played = simulated_tokens(acceptance, drafted, int(claim.given["rounds"]) // laboratory.shrink)
        what = f"tokens a round at a = {acceptance}, played by the oracle (exactly {expected_tokens(acceptance, drafted):.3f})"
        found.append(Measurement(what, played, decides=False, unit="tokens"))
    return found


def mixture(laboratory: Laboratory, claim: Claim) -> list[Measurement]:
    """Multiplications of a layer whose router lets some tokens pass, over those of the layer for all; and its time."""
    length, width, hidden = laboratory.length(claim), int(claim.given["width"]), int(claim.given["hidden"])
    width, hidden = max(width // laboratory.shrink, 1), max(hidden // laboratory.shrink, 1)
    dense, found, lines = 2 * length * width * hidden, [], {"all": length}
    for skipped in claim.given["skipped"]:
        chosen = round((1 - skipped) * length)
        lines[f"r = {skipped}"] = chosen
        counted = (length * width + 2 * chosen * width * hidden) / dense
        found.append(Measurement(f"multiplications at r = {skipped}", counted, figure=f"{1 - skipped:.3f}"))
    kernel = "numpy.mixture_of_depths"
    arrays = "hidden=normal(0) router=normal(1) w_in=normal(2) w_out=normal(3)"
    cases = {
        name: f"mixture_of_depths float32 b=1 l={length} d={width} f={hidden} capacity={capacity} {arrays}"
        for name, capacity in lines.items()
    }
    kernels = [Kernel(name, kernel, "mixture_of_depths", "numpy") for name in cases]
    times = {
        one["name"]: statistics.median(one["seconds"])
        for one in measured(kernels, [cases], runs=laboratory.runs, threads=laboratory.threads)
        if one["seconds"]
    }
    for name in list(cases)[1:]:
        ratio = times[name] / times["all"] if {name, "all"} <= times.keys() else None
        found.append(Measurement(f"time of {kernel} at {name}", ratio, decides=False, why="" if ratio is not None else "not measured"))
    return found


EXPERIMENTS: dict[str, Callable[[Laboratory, Claim], list[Measurement]]] = {
    experiment.__name__: experiment
    for experiment in (speed, doubling, kernel_error, memory, method_error, chebyshev, latent_cache, speculative, mixture)
}
