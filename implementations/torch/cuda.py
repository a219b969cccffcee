"""A kernel in CUDA, built by `torch.utils.cpp_extension.load_inline` at its first call; left out where there is no CUDA toolkit."""

from __future__ import annotations

from math import sqrt

from torch import Tensor

from conformance import register
from implementations.tiling import Band, Window
from implementations.torch.extensions import extension, require

__all__ = ["flash"]

require(cuda=True)


@register(
    "attention", backend="torch", name="torch.cuda_flash", dtypes=("float32", "float16", "bfloat16"), devices=("cuda",),
    restrictions={"d <= 256 and e <= 256": "a warp keeps a row of up to 256 numbers"},
    description="FlashAttention-2 in plain CUDA, built at the first call",
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
) -> Tensor:
    """The kernel of csrc/flash_kernel.cuh, on contiguous copies."""
    shape, band = (*q.shape[:3], k.shape[2]), Band.of(q.shape[2], k.shape[2], causal, window)
    mask, bias = (None if x is None else x.expand(shape).contiguous() for x in (mask, bias))
    sinks = None if sinks is None else sinks.float().contiguous()
    scale = 1 / sqrt(q.shape[3]) if scale is None else float(scale)
    arrays = [x.contiguous() for x in (q, k, v)]
    module = extension("attest_cuda_flash", "flash", cuda="flash.cu")
    made: Tensor = module.flash(*arrays, mask, bias, sinks, band.lowest, band.highest, softcap or 0.0, scale)
    return made
