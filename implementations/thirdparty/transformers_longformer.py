"""transformers: the sliding chunks and global tokens of Longformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.models.longformer.configuration_longformer import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from conformance import register
from implementations.thirdparty.given import Given

__all__ = ["longformer"]


@register(
    "local_global_attention",
    backend="torch",
    name="thirdparty.transformers_longformer",
    restrictions={
        "window > 0": "windows of at least one token to each side",
        "h == g and d == e": "one kind of heads, of one width",
        "b > 0 and h > 0 and l > 0 and d > 0": "there is something to attend to",
    },
    description="transformers: LongformerSelfAttention",
)
def longformer(q: Tensor, k: Tensor, v: Tensor, *, window: int, global_tokens: Sequence[int]) -> Tensor:
    """`LongformerSelfAttention` on tokens padded to whole windows, as in its model; global tokens have the same projections."""
    batch, heads, length, width = q.shape
    config = LongformerConfig(hidden_size=heads * width, num_attention_heads=heads, attention_window=[2 * window], num_hidden_layers=1)
    with torch.device("meta"):
        module = LongformerSelfAttention(config, layer_id=0).eval()
    whole = -(-length // (2 * window)) * 2 * window
    joined = [pad(x.transpose(1, 2).flatten(2), (0, 0, 0, whole - length)).transpose(0, 1) for x in (q, k, v)]
    module.query, module.key, module.value = (Given(x) for x in joined)
    module.key_global, module.value_global = (Given(x) for x in joined[1:])
    module.query_global = Given(joined[0][sorted(set(global_tokens))])  # only of global tokens, the same in every sequence
    marks = torch.zeros(batch, whole)
    marks[:, length:] = -10000.0
    marks[:, list(global_tokens)] = 10000.0
    with torch.no_grad():
        out = module(
            q.new_zeros(batch, whole, heads * width), attention_mask=marks, is_index_masked=marks < 0, is_index_global_attn=marks > 0,
            is_global_attn=bool((marks > 0).any()),
        )[0]  # fmt: skip
    return out[:, :length].reshape(batch, length, heads, width).transpose(1, 2)
