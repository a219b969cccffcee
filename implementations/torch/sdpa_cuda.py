"""`torch.nn.functional.scaled_dot_product_attention` on a GPU, one registration for each kernel that it has there.

What each takes is from PyTorch's own checks (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp), which look at widths but not at
strides: arguments are copied where their rows do not lie as the kernels load them.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from conformance import register
from implementations.tiling import Window
from implementations.torch.devices import aligned
from implementations.torch.sdpa import sdpa

__all__ = ["sdpa_cudnn", "sdpa_efficient", "sdpa_flash"]

GPU = ("cuda",)
HALVES = ("float16", "bfloat16")
NOT_EMPTY = {"b > 0 and h > 0 and l > 0 and s > 0": "fused kernels take no empty arrays"}


@register(
    "attention",
    backend="torch",
    name="torch.sdpa_efficient",
    dtypes=("float32", *HALVES),
    devices=GPU,
    restrictions={
        **NOT_EMPTY,
        "h == g": "the kernel has no grouped heads",
        "d % 8 == 0 and e % 8 == 0 or dtype == 'float32' and d % 4 == 0 and e % 4 == 0": "rows of 16 bytes, as its loads have",
    },
    description="F.scaled_dot_product_attention, EFFICIENT_ATTENTION kernel",
)
def sdpa_efficient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
) -> Tensor:
    """The memory-efficient kernel (Rabe and Staats 2021, arXiv:2112.05682), which takes masks."""
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        return sdpa(*map(aligned, (q, k, v)), mask=mask, bias=bias, causal=causal, window=window, scale=scale)


@register(
    "attention",
    backend="torch",
    name="torch.sdpa_cudnn",
    dtypes=HALVES,
    devices=GPU,
    restrictions={**NOT_EMPTY, "d % 8 == 0 and e % 8 == 0 and d <= 128 and e <= 128": "the widths that cuDNN takes"},
    description="F.scaled_dot_product_attention, CUDNN_ATTENTION kernel",
)
def sdpa_cudnn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
) -> Tensor:
    """The kernel of cuDNN."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return sdpa(*map(aligned, (q, k, v)), mask=mask, bias=bias, causal=causal, window=window, scale=scale)


@register(
    "attention",
    backend="torch",
    name="torch.sdpa_flash_cuda",
    dtypes=HALVES,
    devices=GPU,
    restrictions={**NOT_EMPTY, "d == e and d <= 256": "the kernel takes one head width up to 256"},
    description="F.scaled_dot_product_attention, FLASH_ATTENTION kernel of the GPU",
)
def sdpa_flash(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """FlashAttention-2, which takes no mask there."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return sdpa(*map(aligned, (q, k, v)), scale=scale)
