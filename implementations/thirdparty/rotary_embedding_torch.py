"""rotary-embedding-torch: frequencies and rotation."""

from __future__ import annotations

from rotary_embedding_torch import RotaryEmbedding, apply_rotary_emb
from torch import Tensor

from conformance import register

__all__ = ["rotary"]


@register(
    "rotary_embedding",
    backend="torch",
    name="thirdparty.rotary_embedding_torch",
    restrictions={"interleaved": "pairs are neighbours"},
    description="rotary-embedding-torch: RotaryEmbedding, apply_rotary_emb",
)
def rotary(
    x: Tensor, positions: Tensor, *, base: float = 10000.0, interleaved: bool = True, rotary_width: int | None = None
) -> Tensor:  # fmt: skip
    """Frequencies of `RotaryEmbedding` at the positions, by which `apply_rotary_emb` turns the first columns."""
    module = RotaryEmbedding(x.shape[-1] if rotary_width is None else rotary_width, theta=base, cache_if_possible=False)
    return apply_rotary_emb(module(positions)[:, None].detach(), x)
