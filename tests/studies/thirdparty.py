"""What attest finds in other packages: judges what is installed here, and writes docs/thirdparty.md.

    python tests/studies/thirdparty.py                # all groups; what is not installed keeps what was measured before
    python tests/studies/thirdparty.py lucidrains     # one group, as its tox environment does
    python tests/studies/thirdparty.py --only thirdparty.linformer

Measured results stay in thirdparty.json beside this file, as no environment holds all packages. The exit code is 1 where a verdict
differs from implementations/thirdparty/expected.toml. A run over everything took about an hour on two busy cores.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from conformance.certificate import Certificate
from conformance.certify import Request, certify
from conformance.hunting.hunt import Effort

ROOT = Path(__file__).parents[2]
EXPECTED = ROOT / "implementations" / "thirdparty" / "expected.toml"
MEASURED = Path(__file__).with_suffix(".json")
DOCUMENT = ROOT / "docs" / "thirdparty.md"
SEED, EXAMPLES, SECONDS = 0, 300, 300.0

HEAD = """# What attest finds in other packages

Written by `python tests/studies/thirdparty.py`, run once in each environment (`tox -e thirdparty-lucidrains`, ...).
{count} implementations of {packages} packages are judged: {verdicts}. Everything ran on a CPU in float32 with seed {seed}, at most
{examples} cases and {seconds:.0f} s a hunt; `attest certify NAME` repeats one of them.

An adapter (`implementations/thirdparty/`) calls what the package ships and nothing else: where it is a module, its projections are replaced
by the queries, keys and values that are given. What a package documents differently is declared (conventions, layouts), and calls that it
excludes are not made (restrictions); the certificate says both. What is left is held against the specification.
JAX's own attention and more of ONNX Runtime's operators are judged with their backends: [backends.md](backends.md).

## How a refutation is read

Every finding was checked by hand against the documentation and the source of the package and brought about again without attest: the
lines are in `implementations/thirdparty/expected.toml`, and a test runs them. Each is called one of three things:

* **bug**: the package contradicts its own documentation, or itself: two of its paths, or one with two block sizes, do not agree.
* **difference**: the package means something else, or leaves it open, and says so or may well mean it; attest has no convention for it.
* **numeric limit**: the meaning is the same, and the arithmetic loses more than its format makes necessary.

These are our readings of particular releases. None of it says that the common case is wrong: most findings need cross-attention under
causality, rows without keys, or a mask of fewer axes.

## In all

| package | version | implementation | method | verdict | cases | worst error / budget | judgement |
|---|---|---|---|---|---:|---:|---|
"""


def expected() -> list[dict[str, Any]]:
    """What is said of each implementation."""
    return tomllib.loads(EXPECTED.read_text())["implementation"]


def installed(entry: dict[str, Any]) -> str | None:
    """The version of the package that is judged, if it is there."""
    try:
        return version(entry["package"])
    except PackageNotFoundError:
        return None


def hunt(entry: dict[str, Any], restrictions: dict[str, str] | None = None) -> Certificate:
    """The certificate of an implementation in float32."""
    effort = Effort(examples=EXAMPLES, seconds=SECONDS, seed=SEED)
    [certificate] = certify(Request(targets=(entry["name"],), dtypes=("float32",), effort=effort, restrictions=restrictions or {}))
    return certificate


def measure(entry: dict[str, Any]) -> dict[str, Any]:
    """What a hunt found, and, of what is refuted, a second one without the calls that are known to fail."""
    found = hunt(entry).to_json()
    if found["verdict"] == "error":
        raise click.ClickException(f"{entry['name']}: {found['message']}")
    kept = {name: found[name] for name in ("method", "verdict", "examples", "worst_ratio", "conventions", "restrictions", "layout")}
    kept["findings"] = [{name: finding[name] for name in ("kind", "case", "replay")} for finding in found["findings"]]
    if "rest" in entry:
        rest = hunt(entry, {entry["rest"]: "what is found"}).to_json()
        kept["rest"] = {name: rest[name] for name in ("verdict", "examples", "worst_ratio")}
    return kept


def _row(entry: dict[str, Any], measured: dict[str, Any] | None) -> str:
    if measured is None:
        return f"| {entry['package']} | | `{entry['name']}` | | not measured | | | |"
    ratio = measured["worst_ratio"]
    worst = f"{ratio:.2f}" if measured["verdict"] != "refuted" and isinstance(ratio, float) else ""
    return (
        f"| {entry['package']} | {measured['version']} | `{entry['name']}` | `{measured['method']}` | {measured['verdict']} | "
        f"{measured['examples']} | {worst} | {entry.get('judgement', '')} |"
    )


def _section(entry: dict[str, Any], measured: dict[str, Any]) -> str:
    """One finding in words."""
    lines = [f"### `{entry['name']}`: {entry['judgement']}", "", entry["explanation"].strip(), ""]
    lines += [f"*Documented:* {entry['documented'].strip()}", ""]
    for finding in measured["findings"]:
        lines += [f"Smallest case ({finding['kind']}):", "", "```text", finding["replay"], "```", ""]
    if "rest" in measured:
        rest = measured["rest"]
        lines += [f"With `--restrict '{entry['rest']}'`: {rest['verdict']}, {rest['examples']} cases.", ""]
    if "see" in entry:
        lines += [f"The rest is judged as `{entry['see']}`.", ""]
    return "\n".join(lines)


def write(entries: list[dict[str, Any]], measured: dict[str, Any]) -> None:
    """The document, from what is expected and what was measured."""
    known = [entry for entry in entries if entry["name"] in measured]
    verdicts = Counter(measured[entry["name"]]["verdict"] for entry in known)
    text = HEAD.format(
        count=len(known), packages=len({entry["package"] for entry in known}), seed=SEED, examples=EXAMPLES, seconds=SECONDS,
        verdicts=", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())),
    )  # fmt: skip
    rows = sorted(entries, key=lambda entry: (entry["package"], entry["name"]))
    text += "\n".join(_row(entry, measured.get(entry["name"])) for entry in rows)
    text += "\n\n## What was declared\n\n| implementation | conventions and layout | only where |\n|---|---|---|\n"
    for entry in rows:
        found = measured.get(entry["name"])
        if found is not None:
            declared = [f"{name}={value}" for name, value in found["conventions"].items()]
            declared += [f"layout {found['layout']}"] if found["layout"] else []
            only = "; ".join(f"`{condition}` ({reason})" for condition, reason in found["restrictions"].items())
            text += f"| `{entry['name']}` | {', '.join(declared)} | {only.replace('|', '&#124;')} |\n"
    text += "\n## The findings\n\n"
    text += "\n".join(_section(entry, measured[entry["name"]]) for entry in rows if "judgement" in entry and entry["name"] in measured)
    DOCUMENT.write_text(text.rstrip() + "\n")


@click.command()
@click.argument("groups", nargs=-1)
@click.option("--only", multiple=True, metavar="NAME", help="Only this implementation; repeatable.")
@click.option("--keep", is_flag=True, help="Judge nothing, only write the document again.")
def main(groups: tuple[str, ...], only: tuple[str, ...], keep: bool) -> None:
    """Judge what other packages ship."""
    entries = expected()
    measured: dict[str, Any] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    wrong = []
    for entry in entries:
        if keep or (groups and entry["group"] not in groups) or (only and entry["name"] not in only):
            continue
        release = installed(entry)
        if release is None:
            click.echo(f"{entry['name']:45} skipped: {entry['package']} is not installed")
            continue
        found = {"version": release, **measure(entry)}
        measured[entry["name"]] = found
        as_expected = found["verdict"] == entry["verdict"] and found.get("rest", {}).get("verdict", "certified") == "certified"
        wrong += [] if as_expected else [entry["name"]]
        rest = f", the rest {found['rest']['verdict']}" if "rest" in found else ""
        click.echo(f"{entry['name']:45} {found['verdict']}{rest}{'' if as_expected else ', but should be ' + entry['verdict']}")
        current = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}  # another environment may write meanwhile
        MEASURED.write_text(json.dumps({**current, entry["name"]: found}, indent=1, sort_keys=True) + "\n")
    write(entries, json.loads(MEASURED.read_text()) if MEASURED.exists() else {})
    if wrong:
        click.echo(f"not as expected: {', '.join(wrong)}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
