"""Dense attention in small steps, each of which a mistake can override.

`Reference` computes what the specification means, in the working dtype of a kernel. A mistake is a subclass that overrides
one step (or two that belong together) and carries a name; naming it declares it. The mistakes stand in the modules
`logits`, `masking`, `softmax`, `heads`, `tiled`, `documents`, `memory` and `merging`.

Shapes: B batch, Hq query heads, Hkv key/value heads, Lq and Lk lengths, D query/key width, Dv value width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from math import log, sqrt
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Pitfall, Setting, declare
from oracle import METHODS
from oracle.conditions import condition_names, holds
from oracle.formats import FORMATS
from oracle.readings import EXACT_KINDS

__all__ = ["Reference", "Steps", "declare_dense"]

Array = Any  # an ndarray in the working dtype

CONVENTIONS = {name: values[0] for name, values in METHODS["attention_with_lse"].conventions.items()}
OPTIONS = ("mask", "bias", "causal", "window", "softcap", "scale", "sinks")


class Steps:
    """A method computed step by step. A subclass with a `name` of its own is declared as a pitfall.

    Attributes:
        name, explanation, citation, methods, variants, output: as in `Pitfall`.
        needs: condition over `facts()` under which the mistake can show at all. It speaks of dimensions and options, which
            an implementation may restrict; whether the numbers of one call bring the mistake out is left to comparison.
        occasional: whether so few calls bring the mistake out that only those count as calls to which it applies. Else a
            hunt that happened to make one of the others would wait in vain for one that rules the mistake out.
        declared: the classes by method and name.
    """

    declared: ClassVar[dict[tuple[str, str], type[Steps]]] = {}

    name: ClassVar[str]
    explanation: ClassVar[str]
    citation: ClassVar[str]
    needs: ClassVar[str] = "True"
    occasional: ClassVar[bool] = False
    methods: ClassVar[tuple[str, ...]] = ("attention", "attention_with_lse")
    variants: ClassVar[tuple[int, ...]] = ()
    output: ClassVar[str] = ""

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        self.arguments, self.setting, self.dtype = arguments, setting, setting.working
        self.conventions = {name: arguments.get(name, default) for name, default in CONVENTIONS.items()}

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            for method in cls.methods:
                Steps.declared[method, cls.name] = cls
                signature = METHODS[method].signature
                keys = METHODS[method].hiding[0]
                has_keys = "s" in signature.dims or any(spec.name == keys for spec in signature.inputs)
                variants = cls.variants if has_keys else ()  # tiles are of keys
                run = partial(cls.run, len(signature.outputs))
                shows = None if cls.occasional else cls.shows  # what only the outputs tell
                declare(Pitfall(cls.name, (method,), cls.explanation, cls.citation, run, variants, cls.output, shows))

    @classmethod
    def run(cls, count: int, arguments: Mapping[str, Any], setting: Setting) -> tuple[np.ndarray, ...] | None:
        """The first `count` outputs of a call, or None where the mistake cannot show."""
        with np.errstate(all="ignore"):
            steps = cls(arguments, setting)
            if not steps.applies():
                return None
            outputs = steps.outputs()[:count]
            if cls.occasional and (steps.lost() or not steps.differ(outputs, cls.unmistaken()(arguments, setting).outputs())):
                return None
            return outputs

    @classmethod
    def shows(cls, arguments: Mapping[str, Any], setting: Setting) -> bool:
        """Whether the mistake can show on a call."""
        with np.errstate(all="ignore"):
            return cls(arguments, setting).applies()

    @classmethod
    def unmistaken(cls) -> type[Steps]:
        """The class that computes the same steps rightly."""
        return next(base for base in cls.__mro__ if issubclass(base, Steps) and not hasattr(base, "name"))

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        if not (named := condition_names(self.needs)):
            return holds(self.needs, {})
        facts = self.facts()
        return holds(self.needs, {name: fact() if callable(fact := facts.get(name)) else fact for name in named})

    def facts(self) -> dict[str, Any]:
        """What `needs` may speak of; a function for what is only worth computing where it does."""
        raise NotImplementedError

    def outputs(self) -> tuple[Array, ...]:
        """All that the method returns, in the working dtype."""
        raise NotImplementedError

    def lost(self) -> bool:
        """Whether the numbers are so large that rounding decides the outputs."""
        return False

    def differ(self, wrong: tuple[Array, ...], right: tuple[Array, ...]) -> bool:
        """Whether some output is off by more than a hundredth of the largest right number, which no rounding explains; any integer is."""
        for got, want in zip(wrong, right, strict=False):
            if want.dtype.kind in EXACT_KINDS:
                if not np.array_equal(got, want):
                    return True
                continue
            largest = np.abs(want).max(initial=FORMATS[self.setting.dtype].smallest_normal * 1e4, where=np.isfinite(want))
            if not ((got == want) | (np.isnan(got) & np.isnan(want)) | (np.abs(got - want) <= largest / 100)).all():
                return True
        return False

    def stored(self, x: Array) -> Array:
        """Round to the storage dtype of the call and come back."""
        return x.astype(FORMATS[self.setting.dtype].dtype).astype(self.dtype)

    def in_declared_base(self, lse: Array) -> Array:
        """A natural logarithm in the base that the implementation declares."""
        return lse if self.conventions["lse_base"] == "e" else lse / log(2)


class Reference(Steps):
    """Attention and its logsumexp, as the specification means them."""

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.q, self.k, self.v = arguments["q"], arguments["k"], arguments["v"]
        options: list[Any] = [arguments.get(name) for name in OPTIONS]
        self.mask, self.bias, self.causal, window, self.softcap, self.scale, self.sinks = options
        bounds: tuple[int | None, int | None] = window or (None, None)
        self.left, self.right = bounds
        self.batch, self.heads, self.queries, self.width = self.q.shape
        self.groups, self.keys = self.k.shape[1:3]
        self.shape = (self.batch, self.heads, self.queries, self.keys)

    def facts(self) -> dict[str, Any]:
        """Dimensions, options and conventions by name, and what follows from them."""
        dims = dict(zip("bhlsgde", (*self.shape, self.groups, self.width, self.v.shape[3]), strict=True))
        return {
            **{option: self.arguments.get(option) for option in OPTIONS}, **self.conventions, **dims,
            "left": self.left, "right": self.right, "factor": Reference.factor(self),
            "mask_axes": 0 if self.mask is None else self.mask.ndim, "mask_b": _axis(self.mask, 4), "mask_h": _axis(self.mask, 3),
            "bias_b": _axis(self.bias, 4), "bias_h": _axis(self.bias, 3),
            "hidden": lambda: self.mask is not None or not self.band.all(),
            "empty": lambda: self.mask is not None or not self.band.any(axis=-1).all(),
            "moved": lambda: not np.array_equal(self.band, self.within_band()),
            "half": self.setting.half, "dtype": self.setting.dtype,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.q.size > 0 and super().applies()

    def lost(self) -> bool:
        """Whether the logits are so large that their own rounding decides the softmax."""
        queries, keys = (np.sqrt((x.astype(np.float64) ** 2).sum(axis=-1).max(initial=0.0)) for x in (self.q, self.k))
        rounding = 8 * sqrt(self.width) * FORMATS[self.dtype.name].unit_roundoff
        return bool(queries * keys * abs(self.factor()) * rounding > 0.5)

    # The logits, (B, Hq, Lq, Lk).

    def factor(self) -> float:
        """What the products are multiplied by."""
        return 1 / sqrt(self.width) if self.scale is None else float(self.scale)

    def kv_heads(self) -> Array:
        """Which key/value head each query head reads, (Hq,)."""
        heads = np.arange(self.heads)
        return heads // (self.heads // self.groups) if self.conventions["head_map"] == "grouped" else heads % self.groups

    def read_keys(self) -> Array:
        """The keys as the query heads read them, (B, Hq, Lk, D)."""
        return self.k[:, self.kv_heads()]

    def read_values(self) -> Array:
        """The values as the query heads read them, (B, Hq, Lk, Dv)."""
        return self.v[:, self.kv_heads()]

    def products(self) -> Array:
        """Of queries and keys."""
        return self.q @ self.read_keys().swapaxes(2, 3)

    def scaled(self, logits: Array) -> Array:
        """Logits, scaled."""
        return logits * self.factor()

    def capped(self, logits: Array) -> Array:
        """Logits, softcapped."""
        return logits if self.softcap is None else np.tanh(logits / float(self.softcap)) * float(self.softcap)

    def added_bias(self) -> Array:
        """What is added to the logits."""
        return 0.0 if self.bias is None else self.bias

    def logits(self) -> Array:
        """The logits of all keys, hidden ones included."""
        scaled = self.scaled(self.products())
        if self.conventions["softcap_order"] == "after-bias":
            return self.capped(scaled + self.added_bias())
        return self.capped(scaled) + self.added_bias()

    # Which keys a query may read.

    @cached_property
    def band(self) -> Array:
        """What causality and window leave, without any mistake, (Lq, Lk)."""
        return Reference(self.arguments, self.setting).within_band()

    def positions(self) -> Array:
        """Where each query stands among the keys, (Lq, 1)."""
        start = self.keys - self.queries if self.conventions["causal_alignment"] == "bottom-right" else 0
        return np.arange(self.queries)[:, None] + start

    def bounds(self) -> tuple[int | None, int | None]:
        """How many keys before and after itself a query may read; None for no bound."""
        short = self.conventions["window_bounds"] == "exclusive"
        return None if self.left is None else self.left - short, None if self.right is None else self.right - short

    def within_causal(self, offsets: Array) -> Array:
        """Causality, from how far ahead of its query each key lies."""
        return offsets <= 0 if self.causal else True

    def within_window(self, offsets: Array) -> Array:
        """The window, likewise."""
        left, right = self.bounds()
        return (True if left is None else offsets >= -left) & (True if right is None else offsets <= right)

    def within_band(self) -> Array:
        """Causality and window together, (Lq, Lk)."""
        offsets = np.arange(self.keys) - self.positions()
        return np.ones(offsets.shape, bool) & self.within_causal(offsets) & self.within_window(offsets)

    def within_mask(self) -> Array:
        """The mask, broadcastable to (B, Hq, Lq, Lk)."""
        return True if self.mask is None else self.mask

    def allowed(self) -> Array:
        """The keys that take part, (B, Hq, Lq, Lk)."""
        return np.broadcast_to(self.within_band() & self.within_mask(), self.shape)

    def masked(self, logits: Array, allowed: Array) -> Array:
        """Logits with those of hidden keys replaced."""
        return np.where(allowed, logits, -np.inf)

    def scores(self) -> Array:
        """Logits, masked: what the softmax sees."""
        return self.masked(self.logits(), self.allowed())

    # The softmax; rows are kept as (B, Hq, Lq, 1).

    def sink(self) -> Array:
        """The logit that only joins the denominator, broadcastable to rows."""
        return self.dtype.type(-np.inf) if self.sinks is None else self.sinks[:, None, None]

    def maximum(self, scores: Array, sink: Array) -> Array:
        """The row's maximum."""
        return np.maximum(scores.max(axis=-1, keepdims=True, initial=-np.inf), sink)

    def shift(self, maximum: Array) -> Array:
        """What is subtracted from the scores: (-inf) - (-inf) must not come up in a row without keys."""
        return np.where(np.isfinite(maximum), maximum, 0.0)

    def exponentials(self, scores: Array, shift: Array) -> Array:
        """The weights before normalisation."""
        return np.exp(scores - shift)

    def total(self, weights: Array, sink: Array, shift: Array) -> Array:
        """The denominator."""
        return weights.sum(axis=-1, keepdims=True) + np.exp(sink - shift)

    def normalised(self, x: Array, total: Array) -> Array:
        """Anything over the denominator, zero where there is none."""
        return x / np.where(total == 0, 1.0, total)

    def gathered(self, weights: Array) -> Array:
        """The values, weighed."""
        return weights @ self.read_values()

    def lse(self, total: Array, shift: Array) -> Array:
        """The logarithm of the denominator, (B, Hq, Lq, 1)."""
        return np.log(total) + shift

    def filler(self) -> Array:
        """What stands in the output of a row without keys; None for the zeros that the steps leave there."""
        return {"zeros": None, "nan": np.nan, "mean": self.mean_of_values()}[self.conventions["empty_row"]]

    def finished(self, out: Array, lse: Array) -> tuple[Array, Array]:
        """The two outputs, as the implementation declares them."""
        filler = self.filler()
        if filler is not None and self.sinks is None:
            out = np.where(self.allowed().any(axis=-1, keepdims=True), out, filler)
        return out, self.in_declared_base(lse[..., 0])

    def mean_of_values(self) -> Array:
        """The mean over all keys, hidden ones included, (B, Hq, 1, Dv)."""
        return self.read_values().sum(axis=2, keepdims=True) / max(self.keys, 1)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        scores, sink = self.scores(), self.sink()
        shift = self.shift(self.maximum(scores, sink))
        weights = self.exponentials(scores, shift)
        total = self.total(weights, sink, shift)
        out = self.gathered(self.normalised(weights, total))
        return self.finished(out, self.lse(total, shift))


def _axis(array: Array, from_the_end: int) -> int:
    """Size of an axis of an optional, broadcastable array."""
    return 1 if array is None or array.ndim < from_the_end else array.shape[-from_the_end]


def declare_dense(reference: type[Reference], method: str, names: Iterable[str]) -> None:
    """Declare mistakes of dense attention as mistakes in a method that is dense attention of something; see `Reference`."""
    for name in names:
        dense = Steps.declared["attention", name]
        facts = {"name": name, "explanation": dense.explanation, "citation": dense.citation, "methods": (method,)}
        type(f"{method}: {name}", (reference, dense), facts)
