"""What a function has to heed on a GPU: where it makes tensors, and how those lie that it gives to the library's kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["aligned", "where_its_arguments_are"]

ROW = 16  # bytes that a kernel of a GPU loads at once

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


def aligned(x: Tensor) -> Tensor:
    """A tensor, or on a GPU a copy of one whose rows do not all begin at multiples of 16 bytes.

    The memory-efficient kernel of `scaled_dot_product_attention`, which is chosen without a look at strides, raises or reads misaligned
    addresses there (seen with PyTorch 2.11.0 on an H200); the latter ends all work of the process on the GPU.
    """
    width = ROW // x.element_size()
    lie_well = x.data_ptr() % ROW == 0 and x.stride(-1) == 1 and all(stride % width == 0 for stride in x.stride()[:-1])
    return x if x.device.type == "cpu" or lie_well else x.clone(memory_format=torch.contiguous_format)
