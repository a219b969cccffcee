"""Decoding with drafts in PyTorch: whole batches at once, with gathers, cumulative products and sums, and cross-entropies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from conformance import register
from implementations.torch.logits import working_dtype

__all__ = ["accept", "predict_several", "residual", "sample"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def check_draft(draft: Tensor, vocabulary: int) -> None:
    """Raise `ValueError` for a token that no vocabulary holds."""
    if draft.numel() and (int(draft.min()) < 0 or int(draft.max()) >= vocabulary):
        raise ValueError(f"draft ranges from {int(draft.min())} to {int(draft.max())}, but should be at least 0 and below {vocabulary}")


@register("speculative_accept", backend="torch", name="torch.speculative_accept", dtypes=DTYPES,
          description="gathered quotients, a cumulative product of decisions")  # fmt: skip
def accept(p: Tensor, q: Tensor, draft: Tensor, u: Tensor) -> Tensor:
    """Quotients, infinite where the draft model gives no probability."""
    check_draft(draft, p.shape[2])
    dtype, drafted = working_dtype(p), draft.shape[1]
    own, other = (x[:, :drafted].to(dtype).gather(2, draft[..., None])[..., 0] for x in (p, q))
    ratio = torch.where(other > 0, own / other, torch.inf)
    return (u.to(dtype) <= ratio).long().cumprod(dim=1).sum(dim=1)


def _left(p: Tensor, q: Tensor) -> Tensor:
    left = (p - q).clamp(min=0)
    return torch.where(left.sum(dim=-1, keepdim=True) > 0, left, p)


@register("speculative_residual", backend="torch", name="torch.speculative_residual", dtypes=DTYPES,
          description="clamped differences over their sum")  # fmt: skip
def residual(p: Tensor, q: Tensor) -> Tensor:
    """p where nothing is left, which its own sum leaves as it is but for rounding."""
    dtype = working_dtype(p)
    left = (p.to(dtype) - q.to(dtype)).clamp(min=0)
    total = left.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, left / total, p.to(dtype)).to(p.dtype)


@register("speculative_sampling", backend="torch", name="torch.speculative_sampling", dtypes=DTYPES,
          description="every rejection is prepared, the draw counts the shares that the number exceeds")  # fmt: skip
def sample(p: Tensor, q: Tensor, draft: Tensor, u: Tensor, u_sample: Tensor) -> Tensor:
    """Tokens (B, n + 1), -1 behind the last."""
    dtype, drafted = working_dtype(p), draft.shape[1]
    kept = accept(p, q, draft, u)[:, None]
    rows = torch.cat([_left(p[:, :drafted].to(dtype), q.to(dtype)), p[:, drafted:].to(dtype)], dim=1)
    weights = rows.gather(1, kept[..., None].expand(-1, 1, p.shape[2]))[:, 0]
    shares = weights.cumsum(dim=1) / weights.sum(dim=1, keepdim=True)
    last = p.shape[2] - 1 - (weights > 0).flip(1).long().argmax(dim=1, keepdim=True)
    token = (shares <= u_sample.to(dtype)[:, None]).sum(dim=1, keepdim=True).minimum(last)
    place = torch.arange(drafted + 1, device=p.device)
    drafted_tokens = torch.cat([draft, torch.full_like(kept, -1)], dim=1)
    return torch.where(place < kept, drafted_tokens, torch.where(place == kept, token, -1))


@register("multi_token_prediction", backend="torch", name="torch.multi_token_prediction", dtypes=DTYPES,
          description="all heads as one product, a cross-entropy that ignores what has no target")  # fmt: skip
def predict_several(
    hidden: Tensor, heads: Tensor, unembedding: Tensor, tokens: Tensor, *, reduction: str = "sum"
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Heads side by side in one matrix."""
    check_draft(tokens, unembedding.shape[1])
    dtype, (batch, length, width) = working_dtype(hidden), hidden.shape
    wide = heads.to(dtype).permute(1, 0, 2).reshape(width, -1)
    features = (hidden.to(dtype) @ wide).reshape(batch, length, len(heads), width).transpose(1, 2)
    logits = features @ unembedding.to(dtype)
    targets = torch.full((batch, len(heads), length), -100, dtype=torch.long, device=hidden.device)
    for head in range(min(len(heads), max(length - 1, 0))):
        targets[:, head, : length - 1 - head] = tokens[:, head + 1 :]
    pairs = int((targets >= 0).sum())
    loss = cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="sum") if pairs else logits.new_zeros(())
    return logits.to(hidden.dtype), loss / max(pairs, 1) if reduction == "mean" else loss
