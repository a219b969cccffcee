"""Mistakes in which keys a query may read: mask, causality, and rows that may read none."""

from __future__ import annotations

import numpy as np

from conformance.pitfalls.dense import Array, Reference
from oracle.formats import FORMATS


class MaskIgnored(Reference):
    name = "mask-ignored"
    explanation = "The option `mask` has no effect."
    citation = "vllm-ascend#15503"
    needs = "mask is not None"

    def within_mask(self) -> Array:
        return True


class MaskIgnoredWhenCausal(Reference):
    name = "mask-ignored-when-causal"
    explanation = "With `causal` the kernel takes a path that knows no mask."
    citation = "sglang#20278"
    needs = "mask is not None and causal"

    def within_mask(self) -> Array:
        return True


class MaskPolarityInverted(Reference):
    name = "mask-polarity-inverted"
    explanation = "True in the mask is taken for 'hide' instead of 'may attend'."
    citation = "pytorch#170400"
    needs = "mask is not None"

    def within_mask(self) -> Array:
        return np.logical_not(super().within_mask())


class MaskTransposed(Reference):
    name = "mask-transposed"
    explanation = "The mask is read with queries and keys exchanged; a mask of the keys becomes one of the queries."
    citation = "hyunwoongko/transformer#40"
    needs = "mask is not None and l == s and s > 1"

    def within_mask(self) -> Array:
        return np.broadcast_to(super().within_mask(), self.shape).swapaxes(2, 3)


class MaskOfFirstBatch(Reference):
    name = "mask-of-first-batch"
    explanation = "All elements of the batch use the mask of the first one."
    citation = "axonn-ai/yalis#53"
    needs = "mask_b > 1"

    def within_mask(self) -> Array:
        return super().within_mask()[:1]


class MaskOfFirstHead(Reference):
    name = "mask-of-first-head"
    explanation = "All heads use the mask of the first one."
    citation = "pytorch#172225"
    needs = "mask_h > 1"

    def within_mask(self) -> Array:
        return super().within_mask()[..., :1, :, :]


class MaskOfThreeAxesPerBatch(Reference):
    name = "mask-of-three-axes-per-batch"
    explanation = "The first of three axes of a mask is taken for the batch; it broadcasts over the heads."
    citation = "hyunwoongko/transformer#32"
    needs = "mask_axes == 3 and mask_h > 1 and b == h"
    occasional = True

    def within_mask(self) -> Array:
        return super().within_mask()[:, None]


class MaskOfTwoAxesAsPadding(Reference):
    name = "mask-of-two-axes-as-padding"
    explanation = "The first of two axes of a mask is taken for the batch, as in a mask of padding; it is that of the queries."
    citation = "idiap/fast-transformers#101"
    needs = "mask_axes == 2 and l > 1 and b == l"
    occasional = True

    def within_mask(self) -> Array:
        return super().within_mask()[:, None, None, :]


class MaskAddedAsNumber(Reference):
    name = "mask-added-as-number"
    explanation = "The bool mask is added to the logits as 0 and 1 instead of hiding keys."
    citation = "transformers#41443"
    needs = "mask is not None"

    def within_mask(self) -> Array:
        return True

    def masked(self, logits: Array, allowed: Array) -> Array:
        return super().masked(logits + self.mask, allowed)


class MaskMultipliesScores(Reference):
    name = "mask-multiplies-scores"
    explanation = "Logits of hidden keys are multiplied by zero: they score 0 instead of -inf and take part."
    citation = "georg-wolflein/good-features#1"
    needs = "hidden"

    def masked(self, logits: Array, allowed: Array) -> Array:
        return np.where(allowed, logits, 0.0)


class MaskThenNormalise(Reference):
    name = "mask-then-normalise"
    explanation = "The softmax runs over all keys and hidden ones are removed from its weights, which then sum to less than one."
    citation = "pytorch-image-models#2236"
    needs = "hidden"

    def masked(self, logits: Array, allowed: Array) -> Array:
        return logits

    def normalised(self, x: Array, total: Array) -> Array:
        return np.where(self.allowed(), super().normalised(x, total), 0.0)


class FiniteSentinel(Reference):
    """Logits of hidden keys are a finite number: a row without keys averages what it should not see."""

    needs = "empty and s > 0 and sinks is None and empty_row == 'zeros'"

    def sentinel(self) -> float:
        """The number."""
        raise NotImplementedError

    def masked(self, logits: Array, allowed: Array) -> Array:
        return np.where(allowed, logits, self.sentinel())


class SentinelTenThousand(FiniteSentinel):
    name = "mask-sentinel-1e4"
    explanation = "Hidden keys score -10000: they average in a row without keys, and outweigh visible keys that score less."
    citation = "ohdearquant/lattice#374"

    def sentinel(self) -> float:
        return -1e4


class SentinelBillion(FiniteSentinel):
    name = "mask-sentinel-1e9"
    explanation = "Hidden keys score -1e9: a row without keys is the mean of all values."
    citation = "YutaroOgawa/pytorch_advanced#175"

    def sentinel(self) -> float:
        return -1e9


class SentinelLowest(FiniteSentinel):
    name = "mask-sentinel-finfo-min"
    explanation = "Hidden keys score the lowest finite number of the dtype: a row without keys is the mean of all values."
    citation = "pytorch#103749"

    def sentinel(self) -> float:
        return -FORMATS[self.setting.dtype].largest


class SentinelAdded(Reference):
    name = "mask-sentinel-added"
    explanation = "-10000 is added to the logits of hidden keys: large ones stay visible, and a row without keys attends to all of them."
    citation = "transformers#14859"
    needs = "empty and s > 0"

    def masked(self, logits: Array, allowed: Array) -> Array:
        return np.where(allowed, logits, logits - 1e4)


class SentinelsOverflow(SentinelLowest):
    name = "mask-sentinels-overflow"
    explanation = "Mask and causality each add the lowest finite number; where both hide a key the sum is -inf, and a row may become NaN."
    citation = "transformers#27114"
    needs = "mask is not None and (causal or window is not None) and sinks is None and empty_row == 'zeros'"

    def masked(self, logits: Array, allowed: Array) -> Array:
        hidden_twice = np.logical_not(self.within_mask()) & ~self.within_band()
        return np.where(hidden_twice, -np.inf, super().masked(logits, allowed))

    def shift(self, maximum: Array) -> Array:
        return maximum


class CausalIgnored(Reference):
    name = "causal-ignored"
    explanation = "The option `causal` has no effect."
    citation = "TransformerEngine#1524"
    needs = "moved"

    def within_causal(self, offsets: Array) -> Array:
        return True


class CausalIgnoredWithoutMask(CausalIgnored):
    name = "causal-ignored-without-mask"
    explanation = "Causality is folded into the mask, and skipped when there is none."
    citation = "xformers#103"
    needs = "moved and mask is None"


class CausalIgnoredWhenMasked(CausalIgnored):
    name = "causal-ignored-when-masked"
    explanation = "A mask replaces causality instead of joining it."
    citation = "onnxruntime#28904"
    needs = "moved and mask is not None"


class CausalIgnoredWhenWindowed(CausalIgnored):
    name = "causal-ignored-when-windowed"
    explanation = "With a window, only the window is applied, and keys ahead become visible."
    citation = "tt-metal#51223"
    needs = "moved and window is not None"


class CausalTopLeft(Reference):
    name = "causal-top-left"
    explanation = "Query i stands at key i instead of at i + Lk - Lq: with a cache in front, queries see only its beginning."
    citation = "pytorch#108108"
    needs = "moved and causal"

    def positions(self) -> Array:
        return np.arange(self.queries)[:, None]


class CausalByPackedRow(Reference):
    name = "causal-by-packed-row"
    explanation = "The query's index is divided by the size of the group, as if the heads of a group were packed into the rows."
    citation = "flash-attention#2528"
    needs = "moved and causal and h > g and l > 1"

    def positions(self) -> Array:
        start = super().positions()[0]
        return start + np.arange(self.queries)[:, None] // (self.heads // self.groups)


class PackedRowsShifted(Reference):
    name = "packed-rows-shifted"
    explanation = (
        "The heads of a group are packed into the rows, and a row's query is found by a shift, right only for groups of a power of two."
    )
    citation = "flashinfer#1148"
    needs = "causal and h > g and head_map == 'grouped' and (h // g) not in (1, 2, 4, 8, 16, 32, 64) and l > 1 and s > 0"
    occasional = True

    def within_causal(self, offsets: Array) -> Array:
        group = self.heads // self.groups
        rows = np.arange(self.queries)[:, None] * group + np.arange(self.heads)[:, None, None] % group  # (Hq, Lq, 1)
        late = np.arange(self.queries)[:, None] - (rows >> (group - 1).bit_length())
        return offsets + late <= 0

    def within_band(self) -> Array:
        offsets = np.arange(self.keys) - self.positions()
        return self.within_causal(offsets) & self.within_window(offsets)


class CausalOffByOne(Reference):
    name = "causal-off-by-one"
    explanation = "The comparison is strict: a query does not see the key at its own position."
    citation = "Vaswani et al. 2017, section 3.2.3, arXiv:1706.03762"
    needs = "moved and causal"

    def within_causal(self, offsets: Array) -> Array:
        return offsets < 0


class CausalSeesOneAhead(Reference):
    name = "causal-sees-one-ahead"
    explanation = "A query sees one key beyond its own position."
    citation = "Vaswani et al. 2017, section 3.2.3, arXiv:1706.03762"
    needs = "moved and causal"

    def within_causal(self, offsets: Array) -> Array:
        return offsets <= 1


class EmptyRowNan(Reference):
    name = "empty-row-nan"
    explanation = "A row without keys divides zero by zero."
    citation = "pytorch#103963"
    needs = "empty and s > 0 and sinks is None and empty_row != 'nan'"

    def filler(self) -> Array:
        return np.nan


class EmptyRowMean(Reference):
    name = "empty-row-mean"
    explanation = "A row without keys returns the mean of all values."
    citation = "onnxruntime#28904"
    needs = "empty and s > 0 and sinks is None and empty_row == 'zeros'"

    def filler(self) -> Array:
        return self.mean_of_values()
