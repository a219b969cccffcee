"""Experiments: each takes a claim and gives numbers that can be held against its figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.benching.measuring import Kernel, measured
from conformance.claims.declared import Claim
from conformance.claims.laboratory import Laboratory
from oracle import METHODS
from oracle.cache_size import kv_cache_bytes
from oracle.decoding_speed import expected_tokens, speed_up

__all__ = ["EXPERIMENTS", "Measurement"]

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
        found.append(Measurement(name, value, why=why))
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
    digits = max(-int(np.floor(np.log10(float(claim.figure)))), 0)
    meant = [unit for unit, value in both.items() if f"{value:.{digits + 1}f}" and _rounds_to(value, claim.figure)] or list(both)
    found = [Measurement("the array", both[unit], decides=True, unit=unit) for unit in meant[:1]]
    found += [Measurement("the array", value, decides=False, unit=unit) for unit, value in both.items() if unit != meant[0]]
    if "implementation" in claim.given:
        row = laboratory.row(claim.given["implementation"], laboratory.length(claim))
        peak = None if row is None or row.peak_bytes is None else row.peak_bytes / 2**20
        why = "" if peak is not None else (row.error if row is not None else "") or "not measured on this machine"
        found.append(Measurement(f"peak of a call of {claim.given['implementation']}", peak, decides=False, unit="MiB", why=why))
    return found
