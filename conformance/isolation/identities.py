"""Arguments that have the `id` of those of the call before, whose objects are gone.

CPython gives the memory of an object that nothing refers to any more to the next one of its size, and `id` is its address: what a
kernel remembers by it may be another array's. When that happens is for the allocator to say, so it is made to happen: an
implementation that remembers something by the `id` of an argument meets another argument of this `id` in the next call.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["Identities"]

# Objects that are made at most for one at a certain address.
TRIES = 500


class Identities:
    """The arguments of one call, by name, and where those of the call before were."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[weakref.ref[Any], int]] = {}

    def arguments(self, blank: Callable[[], Any], makers: Callable[[], Mapping[str, Callable[[], Any]]]) -> dict[str, Any]:
        """Arguments by name; each at the address of the one before, if that is gone and nothing else has come there.

        Args:
            blank: makes an object of the same type.
            makers: prepares what makes the arguments, by name.
        """
        gone = {name: number for name, (alive, number) in self._before.items() if alive() is None}
        kept = _reserved(blank, set(gone.values()))  # else what is needed for making one argument comes to lie where another should
        made = {}
        for name, make in makers().items():
            number = gone.get(name)
            made[name] = make() if kept.pop(number, None) is None else _at(make, number)
        self._before = {name: (weakref.ref(argument), id(argument)) for name, argument in made.items()}
        return made

    def forget(self) -> None:
        """Leave the next arguments where they come to lie."""
        self._before.clear()


def _reserved(blank: Callable[[], Any], numbers: Iterable[int]) -> dict[int | None, Any]:
    """Objects at as many of some addresses as are free."""
    left, others = set(numbers), []
    found: dict[int | None, Any] = {}
    for _ in range(TRIES if left else 0):
        one = blank()
        if id(one) in left:
            left.remove(id(one))
            found[id(one)] = one
            if not left:
                break
        else:
            others.append(one)
    return found


def _at(make: Callable[[], Any], number: int | None) -> Any:
    """An object at an address that has just become free; anywhere, where another has been quicker."""
    others = []
    for _ in range(TRIES):
        one = make()
        if id(one) == number:
            return one
        others.append(one)
    return others[0]
