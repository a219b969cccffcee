"""The HTML report of ``attest certify --html``: one file that needs nothing else, for people who would rather look than read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, Template

from conformance.certificate import Certificate, environment, replay_line
from conformance.diagnosis.explaining import pitfalls_named
from conformance.diagnosis.pictures import Picture
from conformance.pitfalls import pitfalls_for

__all__ = ["render"]

# Edges of the bins of error over budget, as powers of ten: below the first everything counts as agreeing to the bit.
DECADES = (-6, -5, -4, -3, -2, -1, -0.5, 0)

VERDICTS = ("refuted", "error", "inconclusive", "certified")

# Above this many options a table of pairs would be unreadable.
MOST_OPTIONS = 14


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: its label, its count and its height between 0 and 1."""

    label: str
    count: int
    height: float


def render(certificates: Sequence[Certificate], problems: Sequence[tuple[str, str]] = ()) -> str:
    """The report as one HTML document.

    Args:
        certificates: in the order in which they were reached.
        problems: sources of registered implementations that could not be loaded, with reasons.
    """
    counts = Counter(certificate.verdict for certificate in certificates)
    return _template().render(
        entries=[_entry(number, certificate) for number, certificate in enumerate(certificates)],
        counts=[(verdict, counts[verdict]) for verdict in VERDICTS if counts[verdict]],
        matrix=_matrix(certificates), problems=problems, environment=environment(),
    )  # fmt: skip


@cache
def _template() -> Template:
    loader = Environment(loader=PackageLoader("conformance.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return loader.get_template("report.html")


def _entry(number: int, certificate: Certificate) -> dict[str, Any]:
    implementation, result = certificate.implementation, certificate.result
    entry: dict[str, Any] = {"id": f"result-{number}", "verdict": certificate.verdict, "dtype": certificate.dtype}
    if implementation is None or result is None:
        return {**entry, "name": certificate.target, "method": "", "error": certificate.error}
    known = {pitfall.name: pitfall for pitfall in pitfalls_for(implementation.method)}
    return {
        **entry, "name": implementation.name, "method": implementation.method, "backend": implementation.backend,
        "device": certificate.where, "implementation": implementation, "result": result, "bars": _bars(result.ratios),
        "ratio": f"{result.worst_ratio:.2f}", "pairs": _pairs(implementation.options, result.coverage), "inferred": certificate.inferred,
        "ruled_out": [(name, known.get(name.partition(" (tile")[0])) for name in result.ruled_out],
        "findings": [
            {
                "finding": finding, "replay": replay_line(implementation, finding),
                "explained": [(text, [known[name] for name in pitfalls_named(text) if name in known]) for text in explained],
            }
            for finding, explained in result.findings
        ],
        "pictures": [_panels(picture) for picture in result.pictures],
    }  # fmt: skip


def _matrix(certificates: Sequence[Certificate]) -> dict[str, Any]:
    """Verdicts by method and implementation (rows) and dtype (columns)."""
    dtypes = list(dict.fromkeys(certificate.dtype for certificate in certificates if certificate.dtype))
    rows: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for number, certificate in enumerate(certificates):
        made = certificate.implementation
        key = (made.method, made.name) if made is not None else ("", certificate.target)
        rows.setdefault(key, {})[certificate.dtype] = (certificate.verdict, f"result-{number}")
    return {"dtypes": dtypes, "rows": [(*key, cells) for key, cells in rows.items()]}


def _bars(ratios: Sequence[float]) -> list[Bar]:
    """How many cases had which worst error over budget."""
    if not ratios:
        return []
    with np.errstate(divide="ignore"):
        powers = np.log10(np.asarray(ratios, dtype=np.float64))
    edges = [-math.inf, *DECADES]
    counts = [int(((powers > low) & (powers <= high)).sum()) for low, high in pairwise(edges)]
    counts[0] += int(np.isneginf(powers).sum())  # which is above no edge
    labels = [f"≤ {10**high:.2g}".replace("e-0", "e-") for high in DECADES]
    most = max(counts) or 1
    return [Bar(label, count, count / most) for label, count in zip(labels, counts, strict=True)]


def _pairs(options: Sequence[str], coverage: Counter[str]) -> dict[str, Any] | None:
    """How many cases had each option, and each two options together."""
    names = [option for option in options if coverage.get(option)][:MOST_OPTIONS]
    if not names:
        return None

    def both(one: str, other: str) -> int:
        return coverage[one] if one == other else coverage[f"{one} x {other}"] + coverage[f"{other} x {one}"]

    return {"names": names, "rows": [(one, [both(one, other) for other in names]) for one in names]}


def _panels(picture: Picture) -> dict[str, Any]:
    """The three planes as grids of colours, with the numbers as titles."""
    finite = np.abs(np.concatenate([picture.got.ravel(), picture.expected.ravel()]))
    largest = float(finite[np.isfinite(finite)].max(initial=0.0)) or 1.0
    return {
        "picture": picture,
        "panels": [
            ("should be", _cells(picture, picture.expected, lambda value: _signed(value / largest))),
            ("is", _cells(picture, picture.got, lambda value: _signed(value / largest))),
            ("error over budget", _cells(picture, picture.ratio, _excess)),
        ],
    }  # fmt: skip


def _cells(picture: Picture, values: np.ndarray, colour: Any) -> list[dict[str, Any]]:
    first_row, first_column = picture.start
    return [
        {
            "x": column, "y": row, "colour": colour(float(value)),
            "title": f"{picture.axes[0]} {first_row + row}, {picture.axes[1]} {first_column + column}: {float(value):.6g}",
        }
        for row, line in enumerate(values)
        for column, value in enumerate(line)
    ]  # fmt: skip


def _signed(part: float) -> str:
    """Blue for negative, white for zero, orange for positive, black for what is no number."""
    if not math.isfinite(part):
        return "#000000"
    strength = min(abs(part), 1.0) ** 0.5
    end = (213, 94, 0) if part > 0 else (0, 114, 178)
    return "#" + "".join(f"{round(255 + (channel - 255) * strength):02x}" for channel in end)


def _excess(ratio: float) -> str:
    """White to grey within the budget, from yellow to red beyond it, black for infinite."""
    if not math.isfinite(ratio):
        return "#000000"
    if ratio <= 1:
        shade = round(255 - 70 * ratio)
        return f"#{shade:02x}{shade:02x}{shade:02x}"
    beyond = min(math.log10(ratio) / 4, 1.0)
    return f"#{round(240 - 60 * beyond):02x}{round(190 * (1 - beyond)):02x}{round(60 * (1 - beyond)):02x}"
