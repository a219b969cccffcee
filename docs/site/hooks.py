"""A hook of mkdocs: a page of reference for each method of the catalogue."""

from __future__ import annotations

import inspect
import re
from typing import Any

from mkdocs.structure.files import File, Files

from conformance.cases.case import condition_names
from conformance.invariants import invariants_for
from conformance.pitfalls import pitfalls_for
from conformance.registry import conventions_of
from oracle import METHODS
from oracle.catalogue import Method

REFERENCE = "reference"


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    files.append(File.generated(config, f"{REFERENCE}/index.md", content=index()))
    for method in METHODS.values():
        files.append(File.generated(config, f"{REFERENCE}/{method.name}.md", content=page(method)))
    return files


def index() -> str:
    """All methods with their summaries."""
    rows = [f"| [`{method.name}`]({method.name}.md) | {cell(method.summary)} |" for method in METHODS.values()]
    return "\n".join(["# Methods", "", "As `attest explain METHOD` shows them.", "", "| method | meaning |", "|---|---|", *rows, ""])


def page(method: Method) -> str:
    """What a method means, and which mistakes are looked for."""
    return "\n\n".join([
        f"# {method.name}",
        fenced(inspect.getdoc(method.spec) or ""),
        f"Shapes: `{method.signature}`\n\nSource: {method.source}",
        *listed("Conditions", {f"`{condition}`": words for condition, words in method.where.items()}),
        *listed("Names in conditions", {f"`{name}`": meaning for name, meaning in condition_names(method).items()}),
        *listed("Conventions, the default first", {f"`{name}`": ", ".join(values) for name, values in conventions_of(method).items()}),
        *listed("Known mistakes", {f"`{one.name}`": f"{one.explanation} ({one.citation})" for one in pitfalls_for(method.name)}),
        *listed("Invariants", {f"`{one.name}`": one.statement for one in invariants_for(method.name)}),
        "## Specification", fenced(inspect.getsource(method.spec), "python"),
    ])  # fmt: skip


def listed(title: str, entries: dict[str, str]) -> list[str]:
    """A section with a table, if there is anything in it."""
    if not entries:
        return []
    return [f"## {title}", "\n".join(["| | |", "|---|---|", *(f"| {name} | {cell(text)} |" for name, text in entries.items())])]


def cell(text: str) -> str:
    """Text in a table: one line, nothing in it markup."""
    return re.sub(r"([|*_<>\\\[\]])", r"\\\1", " ".join(str(text).split()))


def fenced(text: str, language: str = "text") -> str:
    """Text as it is."""
    return f"```{language}\n{text.rstrip()}\n```"
