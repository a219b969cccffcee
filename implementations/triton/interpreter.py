"""Whether kernels of this package are interpreted, and what is known of the interpreter. Import this before Triton.

Triton looks at its environment once, when it is imported. Where there is no GPU, kernels run on the CPU under its interpreter, which
computes with NumPy. What it gets wrong in a dtype is found out by a small kernel rather than assumed; kernels then widen their operands to
float32 first and PyTorch rounds their results, and certificates say so. Compiled code is never helped: it is judged as it is.
"""

from __future__ import annotations

import inspect
import os
from functools import partial
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton
import triton.language as tl
from torch import Tensor

from conformance import register
from conformance.isolation.triton_interpreter import faults

__all__ = ["INTERPRETED", "SMALLEST", "kernel", "padded", "present", "register_kernel", "small", "stored_dtype", "widened"]

INTERPRETED: bool = triton.knobs.runtime.interpret

if INTERPRETED and isinstance(tl.max, triton.runtime.JITFunction):
    raise ImportError("Triton was imported before it was told to interpret; set TRITON_INTERPRET=1 first")

SMALLEST = 16  # of a side of a matrix product


def kernel(function: Any) -> Any:
    """`triton.jit` without specialisation: otherwise Triton compiles anew for every combination of sizes and strides that are 1 or
    multiples of 16, and of aligned addresses, which in a hunt is for nearly every case.
    """
    parameters = inspect.signature(function).parameters.values()
    return triton.jit(do_not_specialize=[p.name for p in parameters if p.annotation is p.empty])(function)


def widened(dtype: torch.dtype) -> bool:
    """Whether operands of this dtype are widened to float32 before they are used, and results rounded by PyTorch."""
    return INTERPRETED and bool(faults(str(dtype).removeprefix("torch.")))


def stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """What kernels store results of this dtype in."""
    return torch.float32 if widened(dtype) else dtype


def _remarks() -> tuple[str, ...]:
    helped = [str(dtype).removeprefix("torch.") for dtype in (torch.float16, torch.bfloat16) if widened(dtype)]
    return tuple(f"in {dtype} operands are widened to float32 first, and PyTorch rounds the results" for dtype in helped)


register_kernel = partial(
    register, backend="torch", dtypes=("float32", "float16", "bfloat16"), devices=("cpu", "cuda") if INTERPRETED else ("cuda",),
    remarks=_remarks(),
)  # fmt: skip


def padded(width: int) -> int:
    """The power of two that a side of a matrix product of this width takes."""
    return max(triton.next_power_of_2(width), SMALLEST)


def small(work: str, most: int) -> dict[str, str]:
    """The restriction of a registration to calls that the interpreter, which takes milliseconds for a tile, answers in a second or two."""
    return {f"{work} <= {most}": "interpreted: larger calls take too long"} if INTERPRETED else {}


def present(x: Tensor | None, other: Tensor) -> Tensor:
    """What to point to: the interpreter fails on the storage of a tensor without elements, and an option may not be given.

    What stands in for a tensor has its dtype, as the types of a kernel are those of its pointers, whether it reads them or not.
    """
    if x is None:
        return other
    return x if x.numel() else x.new_empty(1)
