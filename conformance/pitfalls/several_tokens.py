"""Mistakes of heads that predict several tokens: which token each is held against, and what the loss adds up.

Shapes: B sequences, L length, D width, n heads, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps

__all__ = ["SeveralTokens"]


class SeveralTokens(Steps):
    """Logits of every head, and the sum of their cross-entropies."""

    methods: ClassVar[tuple[str, ...]] = ("multi_token_prediction",)
    citation: ClassVar[str] = "Gloeckle et al. 2024, eq. 2, arXiv:2404.19737"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.hidden, self.heads, self.unembedding = (arguments[name] for name in ("hidden", "heads", "unembedding"))
        self.tokens, self.reduction = arguments["tokens"], arguments.get("reduction") or "sum"
        self.count, self.length = len(self.heads), self.tokens.shape[1]

    def facts(self) -> dict[str, Any]:
        """Dimensions and options."""
        return {
            "b": len(self.tokens), "l": self.length, "n": self.count, "d": self.hidden.shape[2], "v": self.unembedding.shape[1],
            "reduction": self.reduction, "dtype": self.setting.dtype,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.hidden.size > 0 and self.length > 1 and self.unembedding.shape[1] > 1 and super().applies()

    def features(self) -> Array:
        """What is turned into logits, (B, n, L, D)."""
        return self.hidden[:, None] @ self.heads

    def ahead(self, head: int) -> int:
        """How many tokens ahead a head, counted from 0, looks."""
        return head + 1

    def surprises(self, logits: Array, targets: Array) -> Array:
        """- log softmax of the targets."""
        shift = logits.max(axis=-1, keepdims=True)
        total = np.log(np.exp(logits - shift).sum(axis=-1)) + shift[..., 0]
        return total - np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]

    def losses(self, logits: Array) -> list[Array]:
        """Of each head, of all positions that have a target."""
        found = []
        for head in range(self.count):
            step = self.ahead(head)
            if step < self.length:
                found.append(self.surprises(logits[:, head, : self.length - step], self.tokens[:, step:]))
        return found

    def reduced(self, losses: list[Array]) -> Array:
        """The loss."""
        total = sum((loss.sum() for loss in losses), start=self.dtype.type(0))
        return total / self.dtype.type(max(sum(loss.size for loss in losses), 1)) if self.reduction == "mean" else total

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        logits = self.features() @ self.unembedding
        losses = self.losses(logits)
        return logits.astype(self.dtype), np.asarray(self.reduced(losses) if losses else 0.0, dtype=self.dtype)


class TargetTooNear(SeveralTokens):
    name = "targets-one-too-near"
    explanation = "Head i is held against token t + i - 1, so that the first one predicts what it reads."
    occasional = True

    def ahead(self, head: int) -> int:
        return head


class TargetTooFar(SeveralTokens):
    name = "targets-one-too-far"
    explanation = "Head i is held against token t + i + 1."
    occasional = True

    def ahead(self, head: int) -> int:
        return head + 2


class AllNext(SeveralTokens):
    name = "all-heads-next-token"
    explanation = "Every head is held against the next token."
    needs = "n > 1"
    occasional = True

    def ahead(self, head: int) -> int:
        return 1


class TargetsWrapped(SeveralTokens):
    name = "targets-wrap-around"
    explanation = "Targets are rolled, so that the last positions are held against the first tokens of the sequence."
    occasional = True

    def losses(self, logits: Array) -> list[Array]:
        rolled = [np.roll(self.tokens, -self.ahead(head), axis=1) for head in range(self.count)]
        return [self.surprises(logits[:, head], targets) for head, targets in enumerate(rolled)]


class CommonPositions(SeveralTokens):
    name = "positions-of-last-head-for-all"
    explanation = "Only positions that have a target for every head count."
    needs = "n > 1"
    occasional = True

    def losses(self, logits: Array) -> list[Array]:
        kept = max(self.length - self.count, 0)
        return [loss[:, :kept] for loss in super().losses(logits)] if kept else []


class FirstHeadOnly(SeveralTokens):
    name = "loss-of-first-head-only"
    explanation = "Only the first head's cross-entropy is returned."
    needs = "n > 1 and l > 2"
    occasional = True

    def losses(self, logits: Array) -> list[Array]:
        return super().losses(logits)[:1]


class MeanForSum(SeveralTokens):
    name = "mean-where-sum"
    explanation = "The mean over positions and heads is returned where the sum is asked for."
    needs = "reduction == 'sum'"
    occasional = True

    def reduced(self, losses: list[Array]) -> Array:
        return np.concatenate([loss.ravel() for loss in losses]).mean()


class SumForMean(SeveralTokens):
    name = "sum-where-mean"
    explanation = "The sum is returned although reduction says mean."
    needs = "reduction == 'mean'"
    occasional = True

    def reduced(self, losses: list[Array]) -> Array:
        return np.concatenate([loss.ravel() for loss in losses]).sum()


class MeanOfHeads(SeveralTokens):
    name = "mean-of-means"
    explanation = "Each head's mean is taken first, and then the mean of the heads, which weighs the few targets of the last heads more."
    needs = "n > 1 and reduction == 'mean' and l > 2"
    occasional = True

    def reduced(self, losses: list[Array]) -> Array:
        return np.mean([loss.mean() for loss in losses])


class SumOfMeans(SeveralTokens):
    name = "sum-of-means"
    explanation = "The means of the heads are added; the mean is over all pairs of a position and a head."
    needs = "n > 1 and reduction == 'mean' and l > 2"
    occasional = True

    def reduced(self, losses: list[Array]) -> Array:
        return np.sum([loss.mean() for loss in losses])


class HeadsChained(SeveralTokens):
    name = "heads-one-after-another"
    explanation = "Each head works on what the one before it made (DeepSeek-V3), not on the trunk."
    citation = "DeepSeek-AI 2024, section 2.2, arXiv:2412.19437"
    needs = "n > 1"
    occasional = True

    def features(self) -> Array:
        made, x = [], self.hidden
        for head in self.heads:
            x = x @ head
            made.append(x)
        return np.stack(made, axis=1)


class HeadsTransposed(SeveralTokens):
    name = "heads-transposed"
    explanation = "The heads' matrices are applied from the other side, as torch.nn.Linear stores them."
    needs = "d > 1"
    occasional = True

    def features(self) -> Array:
        return self.hidden[:, None] @ self.heads.swapaxes(1, 2)


class FirstHeadForAll(SeveralTokens):
    name = "first-head-for-all"
    explanation = "Every head is the first one."
    needs = "n > 1"
    occasional = True

    def features(self) -> Array:
        return np.repeat(self.hidden[:, None] @ self.heads[:1], self.count, axis=1)


class ResidualHeads(SeveralTokens):
    name = "heads-with-residual"
    explanation = "The trunk's hidden state is added to what a head makes of it (Medusa)."
    citation = "Cai et al. 2024, section 2.1, arXiv:2401.10774"
    occasional = True

    def features(self) -> Array:
        return super().features() + self.hidden[:, None]


class NoMaximum(SeveralTokens):
    name = "softmax-without-maximum"
    explanation = "The loss takes the logarithm of a sum of exponentials without subtracting their maximum, which overflows."
    occasional = True

    def surprises(self, logits: Array, targets: Array) -> Array:
        return np.log(np.exp(logits).sum(axis=-1)) - np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]


class BatchMean(SeveralTokens):
    name = "divided-by-batch"
    explanation = "The sum is divided by the number of sequences."
    needs = "b > 1 and reduction == 'sum'"
    occasional = True

    def reduced(self, losses: list[Array]) -> Array:
        return super().reduced(losses) / self.dtype.type(len(self.tokens))
