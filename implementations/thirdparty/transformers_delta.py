"""transformers: the gated delta rule of Qwen3-Next, token by token and in chunks."""

from __future__ import annotations

from torch import Tensor
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule, torch_recurrent_gated_delta_rule

from conformance import block_sizes, register

__all__ = ["chunked", "recurrent"]

NOT_EMPTY = {"l > 0 and b > 0 and h > 0": "there are tokens", "d > 0 and e > 0": "heads have a width"}


def _tokens_first(*arrays: Tensor) -> list[Tensor]:
    return [x.transpose(1, 2) for x in arrays]


@register(
    "gated_delta_rule",
    backend="torch",
    name="thirdparty.transformers_delta_recurrent",
    restrictions=NOT_EMPTY,
    description="transformers: torch_recurrent_gated_delta_rule of Qwen3-Next",
)
def recurrent(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`torch_recurrent_gated_delta_rule`."""
    out, state = torch_recurrent_gated_delta_rule(*_tokens_first(q, k, v, g, beta), initial_state=initial_state, output_final_state=True)
    return out.transpose(1, 2), state


@register(
    "gated_delta_rule",
    backend="torch",
    name="thirdparty.transformers_delta_chunked",
    tunables={"chunk_size": block_sizes},
    restrictions=NOT_EMPTY,
    description="transformers: torch_chunk_gated_delta_rule of Qwen3-Next",
)
def chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *, initial_state: Tensor | None = None, chunk_size: int = 64
) -> tuple[Tensor, Tensor]:
    """`torch_chunk_gated_delta_rule` with chunks of any length."""
    out, state = torch_chunk_gated_delta_rule(
        *_tokens_first(q, k, v, g, beta), chunk_size=chunk_size, initial_state=initial_state, output_final_state=True
    )
    return out.transpose(1, 2), state
