"""From a function that is called on every process to one that a case can call: tokens are dealt out, outputs put together.

Runs in the worker process, and shares out what it is given to processes of its own; see `conformance.parallel.ranks`.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conformance.cases.layouts import declared_order
from conformance.errors import DriverError
from conformance.parallel.ranks import Failure, Job, Ranks
from conformance.parameters import parameters_of
from oracle.catalogue import Method
from oracle.parallel import token_shares

__all__ = ["PROCESS_FACTS", "WORLD_SIZES", "RankDriver", "RankError", "RanksWait", "is_per_rank", "joined"]

Array = Any  # a tensor

# What a function may want to know of its process, by the name of its parameter. One of the first three tells that it runs on each.
PROCESS_FACTS = ("group", "process_group", "rank", "world_size")
TELLING = PROCESS_FACTS[:3]

WORLD_SIZES = (1, 2, 3, 4)
"""Numbers of processes that cases are run on."""

# On which a call runs that does not say.
USUAL = 2


class RankError(DriverError):
    """What happened on the processes, in words."""


class RanksWait(RankError):
    """The processes wait for each other."""

    kind = "hang"


def is_per_rank(function: Callable[..., Any], name: str, method: Method) -> bool:
    """Whether a function is meant to be called on each of several processes with what that holds."""
    return bool(method.sharded) and any(parameter.name in TELLING for parameter in parameters_of(function, name))


class RankDriver:
    """A function of one process as an implementation of a method.

    Attributes:
        layout: as below; a hunt may declare another.

    Args:
        function: called as function(arrays..., options..., facts of its process) on each process.
        name: of it, for errors.
        method: that the processes implement together.
        layout: order of the axes of its arrays; None for the method's own.

    Raises:
        UsageError: its signature cannot be read.
    """

    remarks = (
        f"called on each of {WORLD_SIZES[0]} to {WORLD_SIZES[-1]} processes (torch.distributed, gloo) with the tokens that it holds; "
        "what its outputs share memory with is not looked at",
    )
    devices = ("cpu",)  # gloo sends no tensors of a GPU from one process to another

    def __init__(self, function: Callable[..., Any], name: str, method: Method, layout: str | None = None) -> None:
        self.function, self.method, self.layout = function, method, layout
        parameters = parameters_of(function, name)
        self._wants = tuple(fact for fact in PROCESS_FACTS if fact in {parameter.name for parameter in parameters})
        kept = [parameter for parameter in parameters if parameter.name not in PROCESS_FACTS]
        world_size = inspect.Parameter("world_size", inspect.Parameter.KEYWORD_ONLY, default=USUAL)
        at_end = [parameter for parameter in kept if parameter.kind is parameter.VAR_KEYWORD]
        self.__signature__ = inspect.Signature([*(one for one in kept if one not in at_end), world_size, *at_end])
        self._zigzag = any(parameter.name == "zigzag" for parameter in kept)
        self._ranks: Ranks | None = None

    def __call__(self, *arrays: Array, world_size: int = USUAL, **keywords: Any) -> Array:
        """Share out the tokens, run the function on each process, and put its outputs together.

        Raises:
            Exception: of the type that a process raised, where that is a builtin one.
            RankError: a process ended, or they wait for each other, or an output does not fit; or another exception.
        """
        if self._zigzag and "zigzag" in keywords:
            keywords["zigzag"] = bool(keywords["zigzag"])
        named = dict(zip((spec.name for spec in self.method.positional), arrays, strict=True))
        inputs = {spec.name: spec for spec in self.method.signature.inputs}
        given = {name: value for name, value in (named | keywords).items() if name in inputs and value is not None}
        axes = {name: self._sharded_axis(inputs[name].dims) for name in given}
        length = next(value.shape[axis] for name, value in given.items() if (axis := axes[name]) is not None)
        shares = token_shares(length, world_size, keywords.get("zigzag", False))
        options = {name: value for name, value in keywords.items() if name not in given}
        jobs = []
        for share in shares:
            held = {name: value[_at(axes[name], share)] for name, value in given.items()}
            jobs.append(Job({name: held.pop(name) for name in named}, held, options, self._wants))
        if self._ranks is None:
            self._ranks = Ranks(self.function)
        answers = self._ranks.run(jobs)
        if isinstance(answers, Failure):
            raise _as_exception(answers)
        for share, answer in zip(shares, answers, strict=True):
            for name, array in answer.changed.items():  # seen where every change is: in the arguments of the call
                given[name][_at(axes[name], share)] = array
        return self._joined([answer.outputs for answer in answers], shares)

    def _sharded_axis(self, dims: tuple[str, ...]) -> int | None:
        order = declared_order(self.layout, self.method, dims) or range(len(dims))
        return next((axis for axis, place in enumerate(order) if dims[place] in self.method.sharded), None)

    def _joined(self, outputs: list[Array], shares: list[np.ndarray]) -> Array:
        specs = self.method.signature.outputs
        if len(specs) == 1:
            return joined(outputs, shares, self._sharded_axis(specs[0].dims) or 0, specs[0].name)
        if any(not isinstance(output, (tuple, list)) or len(output) < len(specs) for output in outputs):
            raise RankError(f"a process returned something else than the outputs {', '.join(spec.name for spec in specs)}")
        return tuple(
            joined([output[index] for output in outputs], shares, self._sharded_axis(spec.dims) or 0, spec.name)
            for index, spec in enumerate(specs)
        )


def joined(outputs: Sequence[Array], shares: Sequence[np.ndarray], axis: int, name: str) -> Array:
    """The outputs of the processes as one, its tokens in order.

    Raises:
        RankError: one has not as many tokens as its process holds, or they do not fit together.
    """
    for rank, (output, share) in enumerate(zip(outputs, shares, strict=True)):
        shape = getattr(output, "shape", None)
        if shape is None:
            raise RankError(f"{name} of rank {rank} of {len(outputs)} is {type(output).__name__}, but should be a tensor")
        if len(shape) <= axis or shape[axis] != len(share):
            wanted = f"but should have {len(share)} on axis {axis}"
            raise RankError(f"{name} of rank {rank} of {len(outputs)} has the shape {tuple(shape)}, {wanted}")
        others = [size for place, size in enumerate(shape) if place != axis]
        first = [size for place, size in enumerate(outputs[0].shape) if place != axis]
        if others != first or output.dtype != outputs[0].dtype:
            raise RankError(
                f"{name} of rank {rank} of {len(outputs)} is {output.dtype} {tuple(shape)}, that of rank 0 {outputs[0].dtype} "
                f"{tuple(outputs[0].shape)}"
            )
    shape = [*outputs[0].shape]
    shape[axis] = sum(len(share) for share in shares)
    out = outputs[0].new_empty(shape)
    for output, share in zip(outputs, shares, strict=True):
        out[_at(axis, share)] = output
    return out


def _at(axis: int | None, share: np.ndarray) -> tuple[Any, ...]:
    """Where some tokens stand in an array; a slice, which is a view as callers take it, where they lie together."""
    if axis is None:
        return (slice(None),)
    together = len(share) > 0 and share[-1] - share[0] + 1 == len(share)
    return (*(slice(None),) * axis, slice(int(share[0]), int(share[-1]) + 1) if together else share)


def _as_exception(failure: Failure) -> Exception:
    """What a process raised, as the type that it was where that is a builtin one: a refusal is known by its type."""
    kind = getattr(builtins, failure.type, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(failure.message)
        except TypeError:  # it wants more than a message
            pass
    said = f"{failure.type}: {failure.message}" if failure.type else failure.message
    return RanksWait(said) if failure.waiting else RankError(said)
