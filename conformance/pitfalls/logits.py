"""Mistakes before the softmax: heads, layout, scale, bias, softcap."""

from __future__ import annotations

from math import sqrt
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls.dense import Array, Reference


class HeadsInterleaved(Reference):
    name = "heads-interleaved"
    explanation = (
        "Query head h reads key/value head h % Hkv instead of h // (Hq // Hkv): the heads were repeated as a block, not each in place."
    )
    citation = "onnx#7274"
    needs = "1 < g and g < h and head_map == 'grouped'"

    def kv_heads(self) -> Array:
        return np.arange(self.heads) % self.groups


class HeadsReadTheFirst(Reference):
    name = "heads-first-kv-head"
    explanation = "Every query head reads the first key/value head, as in multi-query attention."
    citation = "Shazeer 2019, arXiv:1911.02150"
    needs = "g > 1"

    def kv_heads(self) -> Array:
        return np.zeros(self.heads, int)


class KeysReshaped(Reference):
    name = "keys-reshaped-not-transposed"
    explanation = "The memory of the keys is read as (D, Lk) without being transposed, so the numbers of different keys mix."
    citation = "pytorch#181133"
    needs = "d > 1 and s > 1"

    def read_keys(self) -> Array:
        keys = super().read_keys()
        return keys.reshape(*keys.shape[:2], self.width, self.keys).swapaxes(2, 3)


class ValuesOneKeyOff(Reference):
    name = "values-shifted-by-one-key"
    explanation = "A weight meets the value of the key before: keys and values run out of step by one."
    citation = "flashinfer#3022"
    needs = "s > 1"

    def read_values(self) -> Array:
        return np.roll(super().read_values(), 1, axis=2)


class LaterBatchesUnwritten(Reference):
    name = "later-batches-unwritten"
    explanation = "Only the first element of the batch is computed; the others stay zero."
    citation = "pytorch#139462"
    needs = "b > 1"

    def finished(self, out: Array, lse: Array) -> tuple[Array, Array]:
        first = np.arange(self.batch)[:, None, None, None] == 0
        return super().finished(np.where(first, out, 0.0), np.where(first, lse, 0.0))


class ScaleTwice(Reference):
    name = "scale-twice"
    explanation = "The scale is applied twice: to the queries, and to the logits again."
    citation = "transformers#38290"
    needs = "factor != 1 and factor != 0"

    def factor(self) -> float:
        return super().factor() ** 2


class ScaleOptionTwice(ScaleTwice):
    name = "scale-option-twice"
    explanation = "A scale that is given is applied twice; the default one is not."
    citation = "transformers#38290"
    needs = "scale is not None and scale != 1 and scale != 0"


class ScaleForgotten(Reference):
    name = "scale-forgotten"
    explanation = "The logits are not scaled."
    citation = "flexflow-train#467"
    needs = "factor != 1"

    def factor(self) -> float:
        return 1.0


class ScaleOptionIgnored(Reference):
    name = "scale-option-ignored"
    explanation = "The option `scale` is taken and dropped: the logits are scaled by 1/sqrt(D)."
    citation = "Megatron-LM#3698"
    needs = "scale is not None"

    def factor(self) -> float:
        return 1 / sqrt(self.width)


class ScaleByWidth(Reference):
    name = "scale-by-width"
    explanation = "The default scale is 1/D instead of 1/sqrt(D)."
    citation = "Yang et al. 2022, definition 4.1, arXiv:2203.03466"
    needs = "scale is None and d > 1"

    def factor(self) -> float:
        return 1 / int(self.width)


class ScaleByValueWidth(Reference):
    name = "scale-by-value-width"
    explanation = "The default scale is taken from the width of the values instead of the queries."
    citation = "juho-lee/set_transformer#18"
    needs = "scale is None and d != e and e > 0"

    def factor(self) -> float:
        return 1 / sqrt(int(self.v.shape[3]))


class ScaleByAllHeads(Reference):
    name = "scale-by-width-of-all-heads"
    explanation = "The default scale is taken from the width of the model, Hq * D, instead of that of one head."
    citation = "lucidrains/vit-pytorch#65"
    needs = "scale is None and h > 1"

    def factor(self) -> float:
        return 1 / sqrt(self.heads * self.width)


class ScaleOfPaddedWidth(Reference):
    name = "scale-by-padded-width"
    explanation = "The default scale is taken from the width after padding it to a multiple that the hardware likes."
    citation = "bytedance-iaas/sglang#485"
    needs = "scale is None and padded > d"
    variants: ClassVar[tuple[int, ...]] = (8, 16, 32, 64, 128)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "padded": self.padded()}

    def padded(self) -> int:
        multiple = self.setting.tunables.get("block_k", 1)
        return -(-self.width // multiple) * multiple

    def factor(self) -> float:
        return 1 / sqrt(self.padded())


class ScaleZeroAsDefault(Reference):
    name = "scale-zero-taken-for-default"
    explanation = "`scale or default`: a scale of 0 counts as none given."
    citation = "HKUSTDial/flash-sparse-attention#302"
    needs = "scale == 0"
    occasional = True

    def factor(self) -> float:
        return 1 / sqrt(self.width)


class ScaleReciprocal(Reference):
    name = "scale-reciprocal"
    explanation = "The logits are divided by the scale instead of multiplied."
    citation = "maxtext#1370"
    needs = "factor != 1 and factor != -1"

    def factor(self) -> float:
        return float(np.divide(1.0, super().factor()))


class ScaleAfterSoftmax(Reference):
    name = "scale-after-softmax"
    explanation = "The scale multiplies the weights after the softmax instead of the logits before it."
    citation = "FrancescoSaverioZuppichini/ViT#6"
    needs = "factor != 1"

    def scaled(self, logits: Array) -> Array:
        return logits

    def normalised(self, x: Array, total: Array) -> Array:
        return super().normalised(x, total) * self.factor()


class BaseTwoWithoutFactor(Reference):
    name = "exp2-without-log2e"
    explanation = "exp is replaced by the faster exp2 without multiplying the logits by log2(e): the softmax is flatter."
    citation = "flashinfer#787"

    def exponentials(self, scores: Array, shift: Array) -> Array:
        return np.exp2(scores - shift)


class LogitsInStorage(Reference):
    name = "logits-in-storage-dtype"
    explanation = "The products of queries and keys are stored in 16 bits before they are scaled: they lose digits, and float16 overflows."
    citation = "philipturner/metal-flash-attention#8"
    needs = "half"

    def products(self) -> Array:
        return self.stored(super().products())


class QueriesInStorage(Reference):
    name = "queries-scaled-in-storage-dtype"
    explanation = "The scaled queries are rounded to 16 bits again, which costs digits unless the scale is a power of two."
    citation = "ROCm/aotriton#43"
    needs = "half"
    occasional = True

    def products(self) -> Array:
        return self.stored(self.q * self.factor()) @ self.read_keys().swapaxes(2, 3)

    def scaled(self, logits: Array) -> Array:
        return logits


class SoftcapIgnored(Reference):
    name = "softcap-ignored"
    explanation = "The option `softcap` has no effect."
    citation = "sglang#33915"
    needs = "softcap is not None"

    def capped(self, logits: Array) -> Array:
        return logits


class SoftcapAfterMask(Reference):
    name = "softcap-after-mask"
    explanation = "The softcap comes after the mask and turns the -inf of hidden keys into -c, a finite logit: they take part."
    citation = "emx-onnx-cgen#731"
    needs = "softcap is not None and hidden"

    def scaled(self, logits: Array) -> Array:
        return super().masked(super().scaled(logits), self.allowed())

    def masked(self, logits: Array, allowed: Array) -> Array:
        return logits


class SoftcapAfterBias(Reference):
    name = "softcap-after-bias"
    explanation = "The softcap comes after the bias and caps it as well."
    citation = "TransformerEngine#3391"
    needs = "softcap is not None and bias is not None and softcap_order == 'before-bias'"

    def logits(self) -> Array:
        return self.capped(self.scaled(self.products()) + self.added_bias())


class SoftcapBeforeScale(Reference):
    name = "softcap-before-scale"
    explanation = "The softcap caps the raw products, and the scale shrinks what it leaves."
    citation = "Gemma Team 2024, section 2, arXiv:2408.00118"
    needs = "softcap is not None and factor != 1"

    def scaled(self, logits: Array) -> Array:
        return logits

    def capped(self, logits: Array) -> Array:
        return super().capped(logits) * self.factor()


class SoftcapAsClamp(Reference):
    name = "softcap-as-clamp"
    explanation = "The logits are cut off at -c and c instead of bent by tanh."
    citation = "Gemma Team 2024, section 2, arXiv:2408.00118"
    needs = "softcap is not None"

    def capped(self, logits: Array) -> Array:
        return np.clip(logits, -float(self.softcap or 0), float(self.softcap or 0))


class SoftcapNotMultipliedBack(Reference):
    name = "softcap-not-multiplied-back"
    explanation = "The logits become tanh(logits / c), without the factor c in front."
    citation = "Gemma Team 2024, section 2, arXiv:2408.00118"
    needs = "softcap is not None"

    def capped(self, logits: Array) -> Array:
        return np.tanh(logits / float(self.softcap or 1))


class BiasIgnored(Reference):
    name = "bias-ignored"
    explanation = "The option `bias` has no effect."
    citation = "Raffel et al. 2020, section 2.1, arXiv:1910.10683"
    needs = "bias is not None"

    def added_bias(self) -> Array:
        return 0.0


class BiasSubtracted(Reference):
    name = "bias-subtracted"
    explanation = "The bias is subtracted: what should be a penalty on distance becomes a reward."
    citation = "explosion/curated-transformers#260"
    needs = "bias is not None"

    def added_bias(self) -> Array:
        return -super().added_bias()


class BiasScaled(Reference):
    name = "bias-scaled"
    explanation = "The bias is multiplied by the scale before it is added to the finished logits."
    citation = "tt-metal#42891"
    needs = "bias is not None and factor != 1"

    def added_bias(self) -> Array:
        return super().added_bias() * self.factor()


class ScaleOnBias(Reference):
    name = "scale-on-bias"
    explanation = "The bias is added to the raw products, (qk + bias) * scale, and so also goes through the softcap."
    citation = "tt-metal#55333"
    needs = "bias is not None and factor != 1"

    def logits(self) -> Array:
        return self.capped(self.scaled(self.products() + self.added_bias()))


class BiasOfFirstHead(Reference):
    name = "bias-of-first-head"
    explanation = "All heads add the bias of the first one."
    citation = "Press et al. 2022, section 3, arXiv:2108.12409"
    needs = "bias_h > 1"

    def added_bias(self) -> Array:
        return super().added_bias()[..., :1, :, :]


class BiasOfFirstBatch(Reference):
    name = "bias-of-first-batch"
    explanation = "All elements of the batch add the bias of the first one."
    citation = "pytorch#172225"
    needs = "bias_b > 1"

    def added_bias(self) -> Array:
        return super().added_bias()[:1]


class BiasAfterSoftmax(Reference):
    name = "bias-after-softmax"
    explanation = "The bias is added to the weights after the softmax instead of the logits before it."
    citation = "Raffel et al. 2020, section 2.1, arXiv:1910.10683"
    needs = "bias is not None"

    def logits(self) -> Array:
        return self.capped(self.scaled(self.products()))

    def normalised(self, x: Array, total: Array) -> Array:
        return np.where(self.allowed(), super().normalised(x, total) + self.added_bias(), 0.0)
