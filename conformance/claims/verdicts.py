"""What comes of looking into a claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conformance.claims.declared import Claim, agrees
from conformance.claims.experiments import EXPERIMENTS, Measurement
from conformance.claims.laboratory import Laboratory, lacking

__all__ = ["VERDICTS", "Examined", "examine", "exit_code"]

VERDICTS = ("reproduced", "reproduced in part", "not reproduced", "cannot run here")


@dataclass(frozen=True)
class Examined:
    """A claim that was looked into.

    Attributes:
        claim: itself.
        verdict: one of `VERDICTS`; in part where some of the numbers that decide agree and some do not.
        measurements: what was found.
        agreeing: of each of them, whether it agrees; None where it does not decide or could not be had.
        reason: why it cannot run here.
    """

    claim: Claim
    verdict: str
    measurements: tuple[Measurement, ...] = ()
    agreeing: tuple[bool | None, ...] = ()
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        numbers = [{**asdict(one), "agrees": agrees} for one, agrees in zip(self.measurements, self.agreeing, strict=True)]
        return {**asdict(self.claim), "verdict": self.verdict, "reason": self.reason, "measurements": numbers}


def examine(chosen: Sequence[Claim], laboratory: Laboratory) -> Iterator[Examined]:
    """Look into claims, one after the other."""
    for claim in chosen:
        if reason := lacking(claim):
            yield Examined(claim, "cannot run here", reason=reason)
            continue
        found = tuple(EXPERIMENTS[claim.experiment](laboratory, claim))
        agreeing = tuple(
            agrees(claim.means, one.figure or claim.figure, one.value) if one.decides and one.value is not None else None for one in found
        )
        deciding = [one for one in agreeing if one is not None]
        if not deciding:
            why = next((one.why for one in found if one.why), "nothing was measured")
            yield Examined(claim, "cannot run here", found, agreeing, why)
        else:
            yield Examined(claim, VERDICTS[0] if all(deciding) else VERDICTS[1] if any(deciding) else VERDICTS[2], found, agreeing)


def exit_code(examined: Sequence[Examined]) -> int:
    """0: all are reproduced; 1: one is not, or in part; 3: else one could not be looked into."""
    verdicts = {one.verdict for one in examined}
    return 1 if verdicts & set(VERDICTS[1:3]) else 3 if VERDICTS[3] in verdicts else 0
