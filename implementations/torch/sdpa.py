"""Adapters to `torch.nn.functional.scaled_dot_product_attention`, one for each kernel that it has on the CPU (sdpa_cuda.py: on a GPU).

There are two, FLASH_ATTENTION and MATH; by default the library takes the first wherever its conditions hold. Mask, bias,
causality and window go into `attn_mask`, since `is_causal` aligns top-left; that one is registered on its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from conformance import register
from implementations.tiling import Window
from implementations.torch.masks import attention_mask

__all__ = ["sdpa", "sdpa_causal_lower_right", "sdpa_flash", "sdpa_is_causal", "sdpa_math"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
# In float16 the output without keys is NaN exactly where the sum of all queries is not finite: torch 2.13.0 seems to add 0 times that sum.
KEYS_IN_FLOAT16 = {"s > 0 or dtype != 'float16'": "without keys, float16 gives NaN where the sum of all queries overflows"}
SCALE_AFTER_MASK = "puts -inf in before it scales: -inf times a scale of 0 or less is NaN or inf (FLASH_ATTENTION kernel)"


@register(
    "attention",
    backend="torch",
    name="torch.sdpa",
    dtypes=DTYPES,
    restrictions=KEYS_IN_FLOAT16,
    description="F.scaled_dot_product_attention, its own choice of kernel",
)
def sdpa(
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
    """`F.scaled_dot_product_attention` with whichever kernel it chooses."""
    attn_mask = attention_mask(q, k, mask, bias, causal, window)
    return scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=scale, enable_gqa=True)


@register(
    "attention",
    backend="torch",
    name="torch.sdpa_math",
    dtypes=DTYPES,
    restrictions=KEYS_IN_FLOAT16,
    description="F.scaled_dot_product_attention, MATH kernel",
)
def sdpa_math(
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
    """`F.scaled_dot_product_attention` made of plain tensor operations."""
    with sdpa_kernel(SDPBackend.MATH):
        return sdpa(q, k, v, mask=mask, bias=bias, causal=causal, window=window, scale=scale)


@register(
    "attention",
    backend="torch",
    name="torch.sdpa_flash",
    dtypes=DTYPES,
    devices=("cpu",),
    restrictions={**KEYS_IN_FLOAT16, "e == d": "the kernel takes one head width: 'No available kernel' otherwise"},
    description="F.scaled_dot_product_attention, FLASH_ATTENTION kernel",
)
def sdpa_flash(
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
    """`F.scaled_dot_product_attention` with the fused kernel, which takes any strides if only that of the last axis is 1."""
    # Not `contiguous()`: it leaves the stride of an axis of size 1 as it is, while the kernel insists on 1 even there.
    q, k, v = (x if x.stride(-1) == 1 else x.clone(memory_format=torch.contiguous_format) for x in (q, k, v))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return sdpa(q, k, v, mask=mask, bias=bias, causal=causal, window=window, scale=scale)


@register(
    "attention",
    backend="torch",
    name="torch.sdpa_is_causal",
    dtypes=DTYPES,
    conventions={"causal_alignment": "top-left"},
    restrictions={**KEYS_IN_FLOAT16, "not causal or scale is None or scale > 0": f"is_causal {SCALE_AFTER_MASK}"},
    description="F.scaled_dot_product_attention with is_causal",
)
def sdpa_is_causal(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None) -> Tensor:
    """`F.scaled_dot_product_attention` with its own causal mask: query i sees the keys up to i, whatever the lengths."""
    return scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=True)


@register(
    "attention",
    backend="torch",
    name="torch.sdpa_causal_lower_right",
    dtypes=DTYPES,
    restrictions={
        **KEYS_IN_FLOAT16,
        "not causal or scale is None or scale > 0 or l != s": f"for equal lengths it is is_causal, which {SCALE_AFTER_MASK}",
    },
    description="F.scaled_dot_product_attention with attn_mask=causal_lower_right(Lq, Lk)",
)
def sdpa_causal_lower_right(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None) -> Tensor:
    """`F.scaled_dot_product_attention` with the library's bottom-right mask, which warns of NaN if Lq > Lk; the CPU gives zeros there."""
    from torch.nn.attention.bias import causal_lower_right  # here, as it imports torch._dynamo, which takes longer than PyTorch itself

    attn_mask = causal_lower_right(q.shape[2], k.shape[2]) if causal else None
    return scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=scale, enable_gqa=True)
