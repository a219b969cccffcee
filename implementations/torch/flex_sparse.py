"""The sparse patterns through `torch.nn.attention.flex_attention`: each is a `mask_mod`, from which the library makes its block mask.

Not compiled, as in `implementations.torch.flex`; in one dtype only, since the pattern is the same in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from conformance import register
from implementations.torch.devices import where_its_arguments_are
from implementations.torch.flex import NO_KEYS

__all__ = ["bigbird", "block_sparse", "fixed", "local_global", "pattern", "strided"]

NO_QUERIES = {**NO_KEYS, "b * l > 0": "without queries or batch, create_block_mask raises IndexError under vmap"}

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None, mask_mod: MaskMod) -> Tensor:
    mask = create_block_mask(mask_mod, q.shape[0], q.shape[1], q.shape[2], k.shape[2], device=q.device)
    return flex_attention(q, k, v, block_mask=mask, scale=scale, enable_gqa=True)  # type: ignore[return-value]


@register(
    "local_global_attention", backend="torch", name="torch.flex_local_global", restrictions=NO_QUERIES,
    description="flex_attention, eager, with a mask_mod",
)  # fmt: skip
@where_its_arguments_are
def local_global(
    q: Tensor, k: Tensor, v: Tensor, *, window: int, global_tokens: Sequence[int], causal: bool = False, scale: float | None = None,
    global_self: bool = True, global_rows: bool = True,
) -> Tensor:  # fmt: skip
    """A table tells which tokens are global."""
    special = torch.zeros(q.shape[2], dtype=torch.bool)
    special[list(global_tokens)] = True

    def mask_mod(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        reads = ((i - j).abs() <= window) | special[j]
        reads = reads | special[i] if global_rows else reads
        reads = reads if global_self else reads & ~(special[i] & (i == j))
        return reads & (j <= i) if causal else reads

    return _attend(q, k, v, scale, mask_mod)


@register(
    "strided_attention", backend="torch", name="torch.flex_strided", restrictions=NO_QUERIES,
    description="flex_attention, eager, with a mask_mod",
)  # fmt: skip
def strided(q: Tensor, k: Tensor, v: Tensor, *, stride: int, scale: float | None = None) -> Tensor:
    """The last keys, and every stride-th before."""
    return _attend(q, k, v, scale, lambda batch, head, i, j: (j <= i) & ((i - j < stride) | ((i - j) % stride == 0)))


@register(
    "fixed_attention", backend="torch", name="torch.flex_fixed", restrictions=NO_QUERIES,
    description="flex_attention, eager, with a mask_mod",
)  # fmt: skip
def fixed(q: Tensor, k: Tensor, v: Tensor, *, stride: int, c: int = 1, scale: float | None = None) -> Tensor:
    """The query's block, and the last keys of each block before."""
    return _attend(q, k, v, scale, lambda batch, head, i, j: (j <= i) & ((i // stride == j // stride) | (j % stride >= stride - c)))


@register(
    "bigbird_attention", backend="torch", name="torch.flex_bigbird", restrictions=NO_QUERIES,
    description="flex_attention, eager, with a table of blocks",
)  # fmt: skip
@where_its_arguments_are
def bigbird(
    q: Tensor, k: Tensor, v: Tensor, *, block_size: int, window_blocks: int, global_blocks: int, random_blocks: Tensor,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """A table tells which blocks read which."""
    number = torch.arange(random_blocks.shape[0])
    table = (number[:, None] - number).abs() <= window_blocks // 2
    table = (table | (number < global_blocks) | (number < global_blocks)[:, None]).scatter(1, random_blocks, True)
    return _attend(q, k, v, scale, lambda batch, head, i, j: table[i // block_size, j // block_size])


@register(
    "block_sparse_attention", backend="torch", name="torch.flex_block_sparse", restrictions=NO_QUERIES,
    description="flex_attention, eager, with the mask of blocks as a table",
)  # fmt: skip
def block_sparse(
    q: Tensor, k: Tensor, v: Tensor, *, block_mask: Tensor, block_q: int, block_k: int, causal: bool = False, scale: float | None = None
) -> Tensor:
    """The mask of blocks is looked up for each pair."""
    table, ahead = block_mask.expand(q.shape[0], q.shape[1], *block_mask.shape[2:]), k.shape[2] - q.shape[2]

    def mask_mod(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        reads = table[batch, head, i // block_q, j // block_k]
        return reads & (j <= i + ahead) if causal else reads

    return _attend(q, k, v, scale, mask_mod)


@register(
    "pattern_attention", backend="torch", name="torch.flex_pattern", restrictions=NO_QUERIES,
    description="flex_attention, eager, with the pattern as mask_mod",
)  # fmt: skip
def pattern(q: Tensor, k: Tensor, v: Tensor, *, pattern: Callable[[Tensor, Tensor], Tensor], scale: float | None = None) -> Tensor:
    """The pattern is the mask_mod."""
    return _attend(q, k, v, scale, lambda batch, head, i, j: pattern(i, j))
