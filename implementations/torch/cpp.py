"""A kernel in C++, built by `torch.utils.cpp_extension.load_inline` at its first call; left out where there is no compiler or ninja."""

from __future__ import annotations

from math import sqrt

from torch import Tensor

from conformance import register
from conformance.registry import block_sizes
from implementations.tiling import Band, Window
from implementations.torch.extensions import extension, require

__all__ = ["flash"]

require()


@register(
    "attention", backend="torch", name="torch.cpp_flash", dtypes=("float32", "float64", "float16", "bfloat16"), devices=("cpu",),
    tunables={"block_q": block_sizes, "block_k": block_sizes}, description="FlashAttention-2 in C++, built at the first call",
)  # fmt: skip
def flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> Tensor:
    """The loops of csrc/flash.cpp, which read the tensors where they lie."""
    shape, band = (*q.shape[:3], k.shape[2]), Band.of(q.shape[2], k.shape[2], causal, window)
    mask, bias = (None if x is None else x.expand(shape) for x in (mask, bias))
    scale = 1 / sqrt(q.shape[3]) if scale is None else float(scale)
    module = extension("attest_flash", "flash", cpp="flash.cpp")
    made: Tensor = module.flash(q, k, v, mask, bias, sinks, band.lowest, band.highest, softcap or 0.0, scale, block_q, block_k)
    return made
