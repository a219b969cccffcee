"""Arguments of linear, random-feature, low-rank and polynomial attention, and what they mean, term by term."""

from __future__ import annotations

import math

import numpy as np

MAPS = ("elu+1", "relu+1", "relu", "exp")
DOMAINS = ((-1.0, 1.0), (-4.0, 4.0), (-3.0, 1.0), (0.5, 2.0))


def draw(rng, name, gain=None, length=None):
    """Arguments of a method with any of its options."""
    (b, h), (d, e) = rng.integers(1, 3, 2), rng.integers(1, 5, 2)
    l, s = (int(n) for n in rng.integers(1, 8, 2)) if length is None else (length, length)  # noqa: E741
    gain = rng.choice([0.1, 1, 3, 8]) if gain is None else gain
    cross = name in ("linformer_attention", "chebyshev_attention")
    keys = s if cross else l
    case = {"q": gain * rng.normal(size=(b, h, l, d)), "k": rng.normal(size=(b, h, keys, d)), "v": rng.normal(size=(b, h, keys, e))}
    if "linear" in name:
        case |= {"feature_map": str(rng.choice(MAPS)), "eps": float(rng.choice([1e-6, 1e-3, 1.0]))}
    if name == "performer_attention":
        case |= {"projection": rng.normal(size=(rng.integers(1, 9), d)), "eps": float(rng.choice([1e-6, 0.0, 1.0]))}
    if name in ("linear_attention", "performer_attention"):
        case["causal"] = bool(rng.integers(2))
    if name == "linformer_attention":
        p = rng.integers(1, 5)
        case |= {"e": rng.normal(size=(p, s)), "f": rng.normal(size=(p, s))}
    if name == "chebyshev_attention":
        degree, domain = int(rng.integers(0, 13)), DOMAINS[rng.integers(4)]
        case |= {"degree": degree, "domain": domain, "nodes": str(rng.choice(["roots", "extrema"]))}
    if cross and rng.random() < 0.4:
        case["scale"] = float(rng.uniform(-1.0, 1.0))
    return case


class Floats:
    """The functions of a plain evaluation; balls bring their own."""

    exp, sqrt, cos, pi = staticmethod(math.exp), staticmethod(math.sqrt), staticmethod(math.cos), math.pi
    number = float


def weight_of(name, ops, case, q, k):
    """The weight of one key for one query, from their rows."""
    d = len(q)

    def phi(x):
        if case["feature_map"] == "exp":
            return ops.exp(x)
        if case["feature_map"] == "elu+1":
            return x + 1 if x > 0 else ops.exp(x)
        return (x if x > 0 else x * 0) + (1 if case["feature_map"] == "relu+1" else 0)

    if "linear" in name:
        weight = sum(phi(x) * phi(y) for x, y in zip(q, k, strict=True))
        return weight / (1 + ops.exp(-sum(k))) if "gated" in name else weight
    if name == "performer_attention":
        fourth = ops.sqrt(ops.sqrt(ops.number(d)))
        q, k = [x / fourth for x in q], [y / fourth for y in k]
        halves = sum(x * x for x in q) / 2 + sum(y * y for y in k) / 2
        rows = [[ops.number(w) for w in row] for row in case["projection"]]
        return sum(ops.exp(sum(w * (x + y) for w, x, y in zip(row, q, k, strict=True)) - halves) for row in rows) / len(rows)
    logit = sum(x * y for x, y in zip(q, k, strict=True))
    logit = logit * ops.number(case["scale"]) if "scale" in case else logit / ops.sqrt(ops.number(d))
    return lagrange(ops, logit, case) if name == "chebyshev_attention" else ops.exp(logit)


def lagrange(ops, logit, case):
    """The interpolant by Lagrange's formula, from the points alone."""
    degree, (low, high) = case["degree"], (ops.number(end) for end in case["domain"])
    if case["nodes"] == "roots" or degree == 0:
        cosines = [ops.cos(ops.pi * (2 * j + 1) / (2 * degree + 2)) for j in range(degree + 1)]
    else:
        cosines = [ops.cos(ops.pi * j / degree) for j in range(degree + 1)]
    points = [(low + high) / 2 + (high - low) / 2 * c for c in cosines]
    x = low if logit < low else high if logit > high else logit
    total = ops.number(0)
    for j, point in enumerate(points):
        term = ops.exp(point)
        for other in (points[i] for i in range(degree + 1) if i != j):
            term = term * (x - other) / (point - other)
        total = total + term
    return total


def by_terms(name, case, ops=Floats):
    """A method from its formula, one key at a time, and the sums of the magnitudes of its terms."""
    q, k, v = ([[[[ops.number(x) for x in row] for row in head] for head in batch] for batch in case[array]] for array in "qkv")
    shape = (*case["q"].shape[:3], case["v"].shape[3])
    out, size = np.empty(shape, dtype=object), np.empty(shape, dtype=object)
    for b, h, i in np.ndindex(*shape[:3]):
        keys, values = k[b][h], v[b][h]
        if name == "linformer_attention":
            keys, values = (
                [
                    [sum(ops.number(w) * row[x] for w, row in zip(line, rows, strict=True)) for x in range(len(rows[0]))]
                    for line in case[own]
                ]
                for own, rows in (("e", keys), ("f", values))
            )
        count = i + 1 if case.get("causal") else len(keys)
        weights = [weight_of(name, ops, case, q[b][h][i], keys[j]) for j in range(count)]
        total = sum(weights) + (ops.number(case["eps"]) if "eps" in case else 0)
        for x in range(shape[3]):
            out[b, h, i, x] = sum(weight * values[j][x] for j, weight in enumerate(weights)) / total
            size[b, h, i, x] = sum(abs(weight) * abs(values[j][x]) for j, weight in enumerate(weights)) / abs(total)
    return out, size
