"""native-sparse-attention-pytorch: the attention to compressed keys that its `SparseAttention` is made of."""

from __future__ import annotations

from native_sparse_attention_pytorch.native_sparse_attention import attend as package_attend
from torch import Tensor

from conformance import register

__all__ = ["attend"]


@register(
    "attention",
    backend="torch",
    name="thirdparty.native_sparse_attention_attend",
    conventions={"empty_row": "mean"},
    restrictions={"mask_rank in (None, 4) and (mask is None or h == g)": "a mask of four axes without heads of a group", "s > 0": "a key"},
    description="native-sparse-attention-pytorch: attend",
)
def attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """`attend`; masks are broadcast against (batch, key/value heads, heads of a group, queries, keys)."""
    return package_attend(q, k, v, mask=None if mask is None else mask[:, :, None], scale=scale)
