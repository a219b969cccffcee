"""flash-linear-attention: its kernels in Triton, compiled on a GPU and interpreted where there is none.

Interpreted are those that go from token to token, and the parallel form of softmax attention; the chunked ones fail in the interpreter of
Triton 3.9.
"""

from __future__ import annotations

from implementations.triton.interpreter import small  # isort: skip  (before Triton)

import torch
from fla.ops.attn import parallel_attn
from fla.ops.delta_rule import fused_recurrent_delta_rule
from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule
from fla.ops.gla import fused_recurrent_gla
from fla.ops.simple_gla import fused_recurrent_simple_gla
from torch import Tensor

from conformance import register

__all__ = ["attention", "delta", "gated_delta", "gla", "retention"]

RECURRENT = {
    "l > 0 and b > 0 and h > 0": "there are tokens",
    "d > 0 and e > 0": "heads have a width",
    **small("b * h * (l + 8)", 1024),
}
Outputs = tuple[Tensor, Tensor]


def _tokens_first(*arrays: Tensor) -> list[Tensor]:
    return [x.transpose(1, 2).contiguous() for x in arrays]


@register(
    "attention",
    backend="torch",
    name="thirdparty.fla_triton_attention",
    layout="b l h d",
    restrictions={
        "l == s and l > 0": "as many queries as keys",
        "b > 0 and h > 0 and d > 0 and e > 0": "there is something to attend to",
        "d <= 256": "the key dimension can not be larger than 256",
        "causal": "it is causal",
        **small("b * h * (l + 16) * (s + 16)", 65536),
    },
    description="flash-linear-attention: parallel_attn",
)
def attention(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None, sinks: Tensor | None = None
) -> Tensor:
    """`parallel_attn`."""
    return parallel_attn(q, k, v, scale=scale, sink_bias=sinks)


@register(
    "gated_linear_attention",
    backend="torch",
    name="thirdparty.fla_triton_gla",
    restrictions=RECURRENT,
    description="flash-linear-attention: fused_recurrent_gla",
)
def gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None) -> Outputs:
    """`fused_recurrent_gla`."""
    q, k, v, g = _tokens_first(q, k, v, g)
    out, state = fused_recurrent_gla(q, k, v, gk=g, scale=scale, initial_state=initial_state, output_final_state=True)
    return out.transpose(1, 2), state


@register(
    "retention",
    backend="torch",
    name="thirdparty.fla_triton_retention",
    restrictions=RECURRENT,
    description="flash-linear-attention: fused_recurrent_simple_gla, with one decay for each head",
)
def retention(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None
) -> Outputs:
    """`fused_recurrent_simple_gla` with `g_gamma`."""
    q, k, v = _tokens_first(q, k, v)
    gamma = torch.log(decay.float())
    out, state = fused_recurrent_simple_gla(q, k, v, g_gamma=gamma, scale=scale, initial_state=initial_state, output_final_state=True)
    return out.transpose(1, 2), state


@register(
    "delta_rule",
    backend="torch",
    name="thirdparty.fla_triton_delta",
    restrictions={**RECURRENT, "scale is None or scale > 0": "scale must be positive"},
    description="flash-linear-attention: fused_recurrent_delta_rule",
)
def delta(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None
) -> Outputs:
    """`fused_recurrent_delta_rule`."""
    q, k, v, beta = _tokens_first(q, k, v, beta)
    out, state = fused_recurrent_delta_rule(q, k, v, beta, scale=scale, initial_state=initial_state, output_final_state=True)
    return out.transpose(1, 2), state


@register(
    "gated_delta_rule",
    backend="torch",
    name="thirdparty.fla_triton_gated_delta",
    restrictions=RECURRENT,
    description="flash-linear-attention: fused_recurrent_gated_delta_rule",
)
def gated_delta(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None
) -> Outputs:
    """`fused_recurrent_gated_delta_rule`."""
    q, k, v, g, beta = _tokens_first(q, k, v, g, beta)
    out, state = fused_recurrent_gated_delta_rule(
        q, k, v, g=g, beta=beta, scale=scale, initial_state=initial_state, output_final_state=True
    )
    return out.transpose(1, 2), state
