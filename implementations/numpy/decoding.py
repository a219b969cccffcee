"""Decoding with drafts in NumPy: acceptance by products instead of quotients, draws by bisection, losses over blocks of tokens."""

from __future__ import annotations

import numpy as np

from conformance import block_sizes, register
from implementations.numpy.logits import Array, working_dtype

__all__ = ["accept", "predict_several", "residual", "sample"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def check_draft(draft: Array, vocabulary: int) -> None:
    """Raise `ValueError` for a token that no vocabulary holds."""
    if draft.size and (draft.min() < 0 or draft.max() >= vocabulary):
        raise ValueError(f"draft ranges from {draft.min()} to {draft.max()}, but should be at least 0 and below {vocabulary}")


@register("speculative_accept", backend="numpy", name="numpy.speculative_accept", dtypes=DTYPES,
          description="u * q against p, sequence by sequence, up to the first that is rejected")  # fmt: skip
def accept(p: Array, q: Array, draft: Array, u: Array) -> Array:
    """No quotient, so no division by zero."""
    check_draft(draft, p.shape[2])
    dtype, accepted = working_dtype(p), np.zeros(len(draft), np.int32)
    for b, tokens in enumerate(draft):
        for i, token in enumerate(tokens):
            if u[b, i].astype(dtype) * q[b, i, token].astype(dtype) > p[b, i, token].astype(dtype):
                break
            accepted[b] = i + 1
    return accepted


@register("speculative_residual", backend="numpy", name="numpy.speculative_residual", dtypes=DTYPES,
          description="differences where they are positive, times a reciprocal")  # fmt: skip
def residual(p: Array, q: Array) -> Array:
    """Row by row, in place."""
    dtype, out = working_dtype(p), p.copy()
    for row, (own, other) in enumerate(zip(p.astype(dtype), q.astype(dtype), strict=True)):
        likelier = own > other
        if likelier.any():
            differences = np.zeros_like(own)
            differences[likelier] = own[likelier] - other[likelier]
            out[row] = differences * (1 / differences.sum())
    return out


@register("speculative_sampling", backend="numpy", name="numpy.speculative_sampling", dtypes=DTYPES,
          description="one sequence after the other, the last token by bisection of a cumulative sum")  # fmt: skip
def sample(p: Array, q: Array, draft: Array, u: Array, u_sample: Array) -> Array:
    """Tokens (B, n + 1), -1 behind the last."""
    check_draft(draft, p.shape[2])
    dtype, count = working_dtype(p), accept(p, q, draft, u)
    tokens = np.full((len(draft), draft.shape[1] + 1), -1, np.int64)
    for b, kept in enumerate(count):
        weights = p[b, kept].astype(dtype)
        if kept < draft.shape[1]:
            left = np.maximum(weights - q[b, kept].astype(dtype), 0)
            weights = left if left.any() else weights
        possible = np.flatnonzero(weights)
        shares = np.cumsum(weights[possible])
        place = np.searchsorted(shares, u_sample[b].astype(dtype) * shares[-1], side="right")
        tokens[b, :kept], tokens[b, kept] = draft[b, :kept], possible[min(place, len(possible) - 1)]
    return tokens


@register("multi_token_prediction", backend="numpy", name="numpy.multi_token_prediction", dtypes=DTYPES,
          tunables={"block_tokens": block_sizes}, description="one head after the other, the loss over blocks of tokens")  # fmt: skip
def predict_several(
    hidden: Array, heads: Array, unembedding: Array, tokens: Array, *, reduction: str = "sum", block_tokens: int = 64
) -> tuple[Array, Array]:  # fmt: skip
    """As the paper saves memory: the logits of one head at a time."""
    check_draft(tokens, unembedding.shape[1])
    dtype, (batch, length, _) = working_dtype(hidden), hidden.shape
    logits = np.empty((batch, len(heads), length, unembedding.shape[1]), dtype)
    loss, pairs = dtype.type(0), 0
    for i, head in enumerate(heads.astype(dtype)):
        logits[:, i] = hidden.astype(dtype) @ head @ unembedding.astype(dtype)
        for start in range(0, max(length - 1 - i, 0), block_tokens):
            stop = min(start + block_tokens, length - 1 - i)
            own, targets = logits[:, i, start:stop], tokens[:, start + i + 1 : stop + i + 1]
            largest = own.max(axis=-1)
            surprise = np.log(np.exp(own - largest[..., None]).sum(axis=-1)) + largest
            loss += (surprise - np.take_along_axis(own, targets[..., None], axis=-1)[..., 0]).sum(dtype=dtype)
            pairs += targets.size
    return logits.astype(hidden.dtype), np.asarray(loss / max(pairs, 1) if reduction == "mean" else loss, dtype=dtype)
