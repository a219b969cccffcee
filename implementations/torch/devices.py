"""Where a function makes the tensors that it needs beside its arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["where_its_arguments_are"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def where_its_arguments_are(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Tensors that the function makes without a device are made on the one of its first tensor.

    Positions, masks and tables are made in many places of the sparse methods; one that were forgotten would raise on a GPU alone.
    """

    @functools.wraps(function)
    def placed(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        device = next((x.device for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), torch.get_default_device())
        if device == torch.get_default_device():  # a mode costs a little for each operation
            return function(*args, **kwargs)
        with device:
            return function(*args, **kwargs)

    return placed
