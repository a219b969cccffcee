"""Mistakes of capacities: for how many tokens an expert has room."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps

__all__ = ["Capacity"]

CAPACITY = "Fedus et al. 2021, eq. 3, arXiv:2101.03961"


class Capacity(Steps):
    """tokens * k / experts * factor, rounded."""

    methods: ClassVar[tuple[str, ...]] = ("expert_capacity",)
    citation: ClassVar[str] = CAPACITY

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.tokens, self.experts = arguments["tokens"], arguments["experts"]
        self.k, self.least = arguments.get("k") or 1, arguments.get("min_capacity") or 0
        self.capacity_factor = 1.0 if arguments.get("capacity_factor") is None else arguments["capacity_factor"]
        self.rounding = arguments.get("rounding", "up")

    def facts(self) -> dict[str, Any]:
        """Options and conventions."""
        return {
            "tokens": self.tokens, "experts": self.experts, "k": self.k, "min_capacity": self.least, "factor": self.capacity_factor,
            "rounding": self.rounding, "dtype": self.setting.dtype,
        }  # fmt: skip

    def share(self) -> float:
        """Room before it is rounded."""
        return self.tokens * self.k * self.capacity_factor / self.experts

    def whole(self, share: float) -> int:
        """A share, rounded."""
        return ceil(share) if self.rounding == "up" else floor(share)

    def room(self) -> int:
        """What is returned."""
        return max(self.whole(self.share()), self.least)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        return (np.asarray(self.room(), dtype=np.int64),)


class RoundedDown(Capacity):
    name = "capacity-rounded-down"
    explanation = "A fraction of a place is dropped, where capacities are rounded up."
    needs = "rounding == 'up'"
    occasional = True

    def whole(self, share: float) -> int:
        return floor(share)


class RoundedUp(Capacity):
    name = "capacity-rounded-up"
    explanation = "A fraction of a place becomes a whole one, where capacities are declared to be rounded down."
    needs = "rounding == 'down'"
    occasional = True

    def whole(self, share: float) -> int:
        return ceil(share)


class RoundedBeforeFactor(Capacity):
    name = "rounded-before-the-factor"
    explanation = "tokens / experts is rounded down first, and then multiplied by k and the factor."
    occasional = True

    def share(self) -> float:
        return self.tokens // self.experts * self.k * self.capacity_factor


class CapacityWithoutK(Capacity):
    name = "capacity-without-k"
    explanation = "That every token chooses k experts is left out: there is room for one choice of each."
    needs = "k > 1"
    occasional = True

    def share(self) -> float:
        return super().share() / self.k


class CapacityOfBatch(Capacity):
    name = "capacity-of-all-experts"
    explanation = "The share is not divided by the number of experts: each has room for the whole batch."
    needs = "experts > 1"
    occasional = True

    def share(self) -> float:
        return super().share() * self.experts


class FactorForgotten(Capacity):
    name = "capacity-factor-forgotten"
    explanation = "The capacity factor is left out."
    needs = "factor != 1"
    occasional = True

    def share(self) -> float:
        return super().share() / self.capacity_factor


class LeastForgotten(Capacity):
    name = "min-capacity-forgotten"
    explanation = "min_capacity is left out."
    needs = "min_capacity > 0"
    occasional = True

    def room(self) -> int:
        return self.whole(self.share())


class LeastAdded(Capacity):
    name = "min-capacity-added"
    explanation = "min_capacity is added to the share instead of being the least."
    needs = "min_capacity > 0"
    occasional = True

    def room(self) -> int:
        return self.whole(self.share()) + self.least


class AtLeastOne(Capacity):
    name = "never-zero"
    explanation = "There is always room for one, also where no token comes."
    needs = "min_capacity == 0"
    occasional = True

    def room(self) -> int:
        return max(super().room(), 1)
