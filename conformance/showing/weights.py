"""The weights that a method gives to keys, asked of its own specification.

With queries and keys fixed, attention is linear in its values, however it arrives at the weights: by a softmax, a recurrence or a
choice of blocks. So values whose row j is the unit vector j make the output of query i its row of weights, and no method needs code
of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.cases.case import Case, plainest
from conformance.cases.lines import CaseError, parse_case
from conformance.errors import UsageError
from conformance.judge import compare
from oracle import METHODS
from oracle.catalogue import Method
from oracle.options import OptionError
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS
from oracle.signature import ArraySpec, ShapeError

__all__ = ["Weights", "asked_case", "drawable", "weights_of"]

# Arrays of values: their rows are weighed, or those of another array times them.
VALUES = ("v", "v_pages", "w_uv")

# Axes of an array of values that are no keys.
NO_KEYS = ("b", "h", "g")

# What a picture is of, where its command does not say. Widths are such that the weights of normal numbers are neither flat nor one key's.
DIMENSIONS = {
    "b": 1, "h": 1, "g": 1, "l": 48, "s": 48, "d": 16, "r": 8, "m": 64, "p": 12, "w": 48, "num_blocks": 8, "block_size": 6, "max_blocks": 6,
    "edges": 4, "f": 32,
}  # fmt: skip

# Of queries and keys: every key is a column of values.
MOST = 1024

# Options that show what a method is about on so few keys, beside those that it requires anyway.
OPTIONS: dict[str, Mapping[str, str]] = {
    "local_global_attention": {"window": "6", "global_tokens": "(0,24)"},
    "strided_attention": {"stride": "8"},
    "fixed_attention": {"stride": "8", "c": "2"},
    "bigbird_attention": {"block_size": "6", "window_blocks": "3", "global_blocks": "1", "r": "1"},
    "block_sparse_attention": {"block_q": "6", "block_k": "6"},
    "pattern_attention": {"pattern": "dilated:3"},
    "native_sparse_attention": {"compress_block": "8", "compress_stride": "4", "select_block": "8", "select_count": "2", "window": "8"},
    "chebyshev_attention": {"degree": "10", "domain": "(-4.0,4.0)"},
    "differential_attention": {"lam": "0.8"},
    "delta_rule": {"k": "normal(1)*0.25"},  # of length 1, as models make them: longer keys make a state that explodes
    "gated_delta_rule": {"k": "normal(1)*0.25"},
    "paged_attention": {"b": "4", "block_table": "scattered(0)", "context_lens": "mixed(0)"},
    "varlen_attention": {"cu_seqlens_q": "uneven(0)", "cu_seqlens_k": "uneven(0)", "causal": "True"},
    "continuous_batching": {"operations": "join(0,6);grow(0,2);join(1,4);fork(0,2);grow(2,2);grow(1,1)"},
    "fp8_attention": {"query_block": "16", "key_block": "16"},
    "sage_attention": {"query_block": "16", "key_block": "16"},
}


@dataclass(frozen=True)
class Weights:
    """The weights of one part of a method.

    Attributes:
        title: which part, and of which head.
        weights: (queries, keys).
        axes: what rows and columns are.
    """

    title: str
    weights: np.ndarray
    axes: tuple[str, str]


def drawable() -> list[str]:
    """The methods that weigh values."""
    return [name for name, method in METHODS.items() if _values_of(method) is not None]


def asked_case(name: str, words: tuple[str, ...]) -> tuple[Case, dict[str, str]]:
    """The call that a command describes, and the conventions by which it is read.

    Args:
        name: of the method.
        words: ``NAME=VALUE`` as in the line of a case: dimensions, options, recipes of arrays; or a convention.

    Raises:
        UsageError: the method weighs no values, or a word is unknown or misspelt.
    """
    method = METHODS[name]
    if (values := _values_of(method)) is None:
        raise UsageError(f"method={name!r} has no values that it weighs, but should be one of {', '.join(drawable())}")
    given, conventions = _sorted(method, values, words)
    length = given.get("l", given.get("s", str(DIMENSIONS["s"])))  # as many keys as queries, unless both are given
    sizes = {dim: str(DIMENSIONS.get(dim, 4)) for dim in method.signature.dims if dim not in method.derived}
    sizes |= {dim: length for dim in ("l", "s") if dim in sizes} | ({"c": given.get("s", length)} if values.name == "w_uv" else {})
    recipes = {spec.name: f"{plainest(method, spec)}({number})" for number, spec in enumerate(method.signature.required)}
    given = {**sizes, **recipes, **OPTIONS.get(name, {}), **given}
    try:
        case = parse_case(" ".join([name, "float64", *(f"{word}={value}" for word, value in given.items())])).settled()
        keys = int(np.prod([case.dims[dim] for dim in _key_dims(method, values)]))
        case = replace(case, dims={**case.dims, values.dims[-1]: keys})
        _check_sizes(case, keys)
        method.check({**case.arguments(conventions), **conventions})
    except (CaseError, OptionError, ShapeError) as error:
        raise UsageError(str(error)) from None
    return case, conventions


def weights_of(case: Case, conventions: Mapping[str, str]) -> list[Weights]:
    """The weights of every part of a method and of every head, those of all parts together last.

    Args:
        case: from `asked_case`.
        conventions: by which the specification is read.

    Raises:
        UsageError: the output is no weighted sum of the values.
    """
    arguments = {**case.arguments(conventions), **conventions}
    whole = _map(case, arguments)
    _check_linear(case, arguments, whole)
    parts = PARTS[case.method](case, arguments, whole) if case.method in PARTS else {}
    return [made for title, array in {**parts, "": whole}.items() for made in _panels(case, title, array)]


def _check_sizes(case: Case, keys: int) -> None:
    for what, count in (("keys", keys), ("queries", case.dims.get("l", 1))):
        if count > MOST:
            raise UsageError(f"a picture of {count} {what}, but should be of at most {MOST}")
    for dim, size in case.dims.items():
        if size < 1 and dim != "max_blocks":
            raise UsageError(f"{dim}={size}, but should be at least 1 where something is to be drawn")


def _values_of(method: Method) -> ArraySpec | None:
    """The array whose rows are weighed; None for a method that weighs none."""
    found = next((spec for spec in method.signature.required if spec.name in VALUES), None)
    if found is None or found.dims[-1] != method.signature.outputs[0].dims[-1]:
        return None
    others = (spec for spec in method.signature.required if spec is not found)
    return None if any(found.dims[-1] in spec.dims for spec in others) else found  # what goes on through other arrays is no sum of rows


def _key_dims(method: Method, values: ArraySpec) -> tuple[str, ...]:
    """The dimensions that tell one key from another."""
    rows = next(spec for spec in method.signature.inputs if spec.name == "c_kv") if values.name == "w_uv" else values
    return tuple(dim for dim in rows.dims[:-1] if dim not in NO_KEYS)


def _sorted(method: Method, values: ArraySpec, words: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """What a case has, and conventions."""
    known = [dim for dim in method.signature.dims if dim != values.dims[-1] and dim not in method.derived]
    known += [spec.name for spec in method.signature.inputs if spec is not values]
    known += [*method.options, *method.conventions]
    given: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in known:
            raise UsageError(f"option={word!r}, but should be NAME=VALUE with a name of {', '.join(known)}")
        given[name] = text.replace(" ", "")
    conventions = {name: given.pop(name) for name in method.conventions if name in given}
    return given, conventions


def _map(case: Case, arguments: Mapping[str, Any]) -> np.ndarray:
    """The output for values of which each is a unit vector."""
    method = case.specification
    values = _values_of(method)
    assert values is not None, "a case of a method that weighs values"
    keys = case.dims[values.dims[-1]]
    if values.name == "w_uv":  # the rows that are weighed are those of c_kv times it
        rows = np.asarray(arguments["c_kv"], dtype=np.float64)[0]
        if np.linalg.matrix_rank(rows) < keys:
            raise UsageError(f"c={case.dims['c']}, but should be at least s={keys}, or rows of values cannot be told apart")
        one_hot = np.broadcast_to(np.linalg.pinv(rows), case.shape(values.name)).copy()
    else:
        sizes = [case.dims[dim] if dim not in NO_KEYS else 1 for dim in values.dims[:-1]]
        one_hot = np.broadcast_to(np.eye(keys).reshape(*sizes, keys), case.shape(values.name)).copy()
    outputs = method(**{**arguments, values.name: one_hot})
    return np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)


def _check_linear(case: Case, arguments: Mapping[str, Any], weights: np.ndarray) -> None:
    """Raise unless the weights give the output for other values, too, as nearly as a float32 kernel of the method would."""
    method = case.specification
    values = _values_of(method)
    assert values is not None, "a case of a method that weighs values"
    if values.name == "w_uv":  # nothing but products of matrices
        return
    sizes = [case.dims[dim] for dim in values.dims[:-1] if dim not in NO_KEYS]
    one_head = np.random.default_rng(0).standard_normal((*sizes, case.dims[values.dims[-1]]))
    axes = [case.dims[dim] if dim not in NO_KEYS else 1 for dim in values.dims]
    given = np.broadcast_to(one_head.reshape(axes), case.shape(values.name)).copy()
    contract = CONTRACTS["float32"]
    with np.errstate(invalid="ignore"):
        wanted = expected(budget(method, {**arguments, values.name: given}, contract)[0], "float32")
    got = weights @ one_head.reshape(-1, one_head.shape[-1])
    if not compare(got, replace(wanted, alternatives=None))[1].all():
        raise UsageError(f"the output of {method.name} is no weighted sum of its values, but should be one to be drawn")


def _panels(case: Case, title: str, weights: np.ndarray) -> list[Weights]:
    """One picture a head; every other axis of the output but the keys goes down the rows."""
    dims = case.specification.signature.outputs[0].dims
    heads = case.dims["h"] if "h" in dims else 1
    by_head = np.moveaxis(weights, dims.index("h"), 0) if "h" in dims else weights[None]
    down = [dim for dim in dims[:-1] if dim != "h" and (case.dims[dim] > 1 or dim in ("l", "r"))] or ["b"]
    rows = " by ".join(ROWS.get(dim, dim) for dim in down)
    across = "place in the pages" if "num_blocks" in case.dims else "token" if case.specification.subject == "cache" else "key"
    return [
        Weights(", ".join(filter(None, (title, f"head {head}" * (heads > 1)))), own.reshape(-1, own.shape[-1]), (rows, across))
        for head, own in enumerate(by_head)
    ]


def _both_maps(case: Case, arguments: Mapping[str, Any], whole: np.ndarray) -> dict[str, np.ndarray]:
    """Without the second map, and what one whole second map takes from that."""
    plain = {name: value for name, value in arguments.items() if name != "lam_init"}
    first = _map(case, {**plain, "lam": 0.0})
    return {"first map": first, "second map": first - _map(case, {**plain, "lam": 1.0})}


def _branches(case: Case, arguments: Mapping[str, Any], whole: np.ndarray) -> dict[str, np.ndarray]:
    """With the gate of one branch open."""
    gates = np.zeros(np.shape(arguments["gates"]))
    made = {}
    for number, name in enumerate(("compressed", "selected", "window")):
        gates[:] = np.arange(gates.shape[-1]) == number
        made[name] = _map(case, {**arguments, "gates": gates.copy()})
    return made


# What some methods weigh values by before they add it up, from the call to pictures by title.
PARTS: dict[str, Callable[[Case, Mapping[str, Any], np.ndarray], dict[str, np.ndarray]]] = {
    "differential_attention": _both_maps,
    "native_sparse_attention": _branches,
}

ROWS = {"b": "sequence", "l": "query", "r": "query"}
