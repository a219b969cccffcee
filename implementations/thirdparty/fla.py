"""flash-linear-attention: the naive PyTorch forms that its Triton kernels are tested against."""

from __future__ import annotations

from fla.ops.attn.naive import naive_parallel_attn
from fla.ops.delta_rule.naive import delta_rule_chunkwise, delta_rule_recurrence
from fla.ops.gated_delta_rule.naive import naive_chunk_gated_delta_rule, naive_recurrent_gated_delta_rule
from fla.ops.gla.naive import naive_recurrent_gla
from torch import Tensor

from conformance import block_sizes, register

__all__ = ["attention", "delta_chunked", "delta_recurrent", "gated_delta_chunked", "gated_delta_recurrent", "gla"]

NOT_EMPTY = {"l > 0 and b > 0 and h > 0": "there are tokens", "d > 0 and e > 0": "heads have a width"}
Outputs = tuple[Tensor, Tensor]


def _tokens_first(*arrays: Tensor) -> list[Tensor]:
    return [x.transpose(1, 2) for x in arrays]


@register(
    "attention",
    backend="torch",
    name="thirdparty.fla_attention",
    layout="b l h d",
    restrictions={"l == s and l > 0": "as many queries as keys", "d > 0 or scale is not None": "1 / sqrt(0)"},
    description="flash-linear-attention: naive_parallel_attn",
)
def attention(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True, scale: float | None = None, sinks: Tensor | None = None
) -> Tensor:
    """`naive_parallel_attn`."""
    return naive_parallel_attn(q, k, v, scale=scale, causal=causal, sink_bias=sinks)[0]


@register(
    "gated_linear_attention",
    backend="torch",
    name="thirdparty.fla_gla",
    restrictions=NOT_EMPTY,
    description="flash-linear-attention: naive_recurrent_gla",
)
def gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, initial_state: Tensor | None = None) -> Outputs:
    """`naive_recurrent_gla`."""
    out, state = naive_recurrent_gla(*_tokens_first(q, k, v, g), initial_state=initial_state, output_final_state=True)
    return out.transpose(1, 2), state


@register(
    "delta_rule",
    backend="torch",
    name="thirdparty.fla_delta_recurrent",
    restrictions=NOT_EMPTY,
    description="flash-linear-attention: delta_rule_recurrence",
)
def delta_recurrent(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, initial_state: Tensor | None = None) -> Outputs:
    """`delta_rule_recurrence`."""
    return delta_rule_recurrence(q, k, v, beta, initial_state=initial_state)


@register(
    "delta_rule",
    backend="torch",
    name="thirdparty.fla_delta_chunked",
    tunables={"chunk_size": (1, 2, 4, 8)},
    restrictions={**NOT_EMPTY, "l % 8 == 0": "whole chunks only, of up to 8 tokens here"},
    description="flash-linear-attention: delta_rule_chunkwise",
)
def delta_chunked(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, chunk_size: int = 8) -> Outputs:
    """`delta_rule_chunkwise`."""
    return delta_rule_chunkwise(q, k, v, beta, chunk_size=chunk_size)


@register(
    "gated_delta_rule",
    backend="torch",
    name="thirdparty.fla_gated_delta_recurrent",
    restrictions=NOT_EMPTY,
    description="flash-linear-attention: naive_recurrent_gated_delta_rule",
)
def gated_delta_recurrent(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None
) -> Outputs:
    """`naive_recurrent_gated_delta_rule`, which takes beta before g."""
    out, state = naive_recurrent_gated_delta_rule(
        *_tokens_first(q, k, v, beta, g), scale=scale, initial_state=initial_state, output_final_state=True
    )
    return out.transpose(1, 2), state


@register(
    "gated_delta_rule",
    backend="torch",
    name="thirdparty.fla_gated_delta_chunked",
    tunables={"chunk_size": block_sizes},
    restrictions=NOT_EMPTY,
    description="flash-linear-attention: naive_chunk_gated_delta_rule",
)
def gated_delta_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    chunk_size: int = 64,
) -> Outputs:
    """`naive_chunk_gated_delta_rule`, which takes g before beta."""
    out, state = naive_chunk_gated_delta_rule(
        *_tokens_first(q, k, v, g, beta), chunk_size=chunk_size, scale=scale, initial_state=initial_state, output_final_state=True
    )
    return out.transpose(1, 2), state
