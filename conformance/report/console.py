"""What the command line prints: verdicts, findings, lists and explanations, with colour only on a terminal."""

from __future__ import annotations

import inspect
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from conformance.cases.case import condition_names
from conformance.certificate import Certificate, replay_line
from conformance.certify import Watcher
from conformance.diagnosis.explaining import pitfalls_named
from conformance.diagnosis.trigger import Trigger
from conformance.hunting.hunt import Hunt
from conformance.invariants import invariants_for
from conformance.judge import Finding, Judgement
from conformance.pitfalls import pitfalls_for
from conformance.registry import Implementation, conventions_of
from oracle.catalogue import Method

if TYPE_CHECKING:
    from conformance.benching.run import Row
    from conformance.claims.verdicts import Examined
    from conformance.doctor import Check

__all__ = [
    "Display", "Measuring", "show_bench", "show_certificate", "show_checks", "show_claims", "show_judgement", "show_list", "show_method",
    "show_table",
]

COLOURS = {"certified": "bold green", "refuted": "bold red", "inconclusive": "bold yellow", "error": "bold magenta"}


def _console(*, to_stderr: bool = False) -> Console:
    # Lines stay whole when piped, so that a case can be copied and a log searched.
    return Console(stderr=to_stderr, highlight=False, emoji=False, soft_wrap=True)


def escape(text: str) -> str:
    """Text that may come from a kernel: no markup, no control characters, one line."""
    return escape_markup("".join(character if character.isprintable() else " " for character in text))


class Display:
    """Live counts while hunting, and each certificate as it comes. Use as a context manager.

    Args:
        silent: print nothing on stdout.
        quiet: print no certificate that is as it should be.

    Attributes:
        certificates: that were reached so far.
        problems: sources of implementations that could not be loaded, with reasons.
    """

    def __init__(self, silent: bool = False, quiet: bool = False) -> None:
        self.out = Console(quiet=True) if silent else _console()
        self.quiet = quiet
        errors = _console(to_stderr=True)
        self.progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(), console=errors, transient=True, disable=not errors.is_terminal,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._errors = errors
        self.certificates: list[Certificate] = []
        self.problems: list[tuple[str, str]] = []

    @property
    def watcher(self) -> Watcher:
        """The callbacks to pass to `conformance.certify.certify`."""
        return Watcher(self._unloadable, self._started, self._hunting, self._finished)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
        counts = Counter(certificate.verdict for certificate in self.certificates)
        if counts.total() > 1 or (self.quiet and counts.total()):
            self.out.print(", ".join(f"[{COLOURS[verdict]}]{count} {verdict}[/]" for verdict, count in counts.items()))

    def _unloadable(self, source: str, reason: str) -> None:
        self.problems.append((source, reason))
        self._errors.print(_cannot_load(source, reason))

    def _started(self, implementation: Implementation, dtype: str) -> None:
        self._task = self.progress.add_task(f"{escape(implementation.name)} {dtype}", total=None, note="")

    def _hunting(self, hunt: Hunt) -> None:
        if self._task is not None:
            note = f"{hunt.search.stage}, worst {hunt.worst.ratio:.2f}, {len(hunt.adequacy.left)} mistakes left"
            self.progress.update(self._task, completed=hunt.examples, total=max(hunt.effort.examples, hunt.examples), note=note)

    def _finished(self, certificate: Certificate) -> None:
        self.certificates.append(certificate)
        if self._task is not None:
            self.progress.remove_task(self._task)
            self._task = None
        if not (self.quiet and certificate.verdict == "certified"):
            self.show(certificate)

    def show(self, certificate: Certificate) -> None:
        """Print a certificate."""
        show_certificate(self.out, certificate)


def show_certificate(out: Console, certificate: Certificate) -> None:
    """A headline, what was declared, and the findings."""
    verdict = f"[{COLOURS[certificate.verdict]}]{certificate.verdict.upper():12}[/]"
    implementation, result = certificate.implementation, certificate.result
    if implementation is None or result is None:
        out.print(f"{verdict} {escape(certificate.target)}")
        return
    where = "" if certificate.device == "cpu" else f" on {escape(certificate.where)}"
    out.print(
        f"{verdict} {escape(implementation.name)}  {implementation.method} {certificate.dtype}{where}  "
        f"{result.examples} cases, {result.seconds:.1f} s, worst error/budget {result.worst_ratio:.2f} "
        f"under contract {result.contract.name}, {len(result.ruled_out)} mistakes ruled out"
    )
    for name, value in implementation.conventions.items():
        out.print(f"  declared   {name}={value}")
    if implementation.layout:
        out.print(f"  declared   layout {escape(implementation.layout)}")
    for condition, reason in implementation.restrictions.items():
        out.print(f"  only where {escape(condition)}: {escape(reason)}")
    for note in implementation.notes:
        out.print(f"  note       {escape(note)}")
    if result.isolates_nan is not None and certificate.verdict == "certified":
        out.print(f"  property   NaN where nothing may read {'has no effect' if result.isolates_nan else 'leaks into the output'}")
    if certificate.verdict == "certified":
        out.print(f"  property   two identical calls {'give the same bits' if result.deterministic else 'differ in rounding'}")
    if result.near_ties:
        wider = f", {result.widened} of them by a wider budget, as too many outcomes were" if result.widened else ""
        out.print(f"  decisions  in {result.near_ties} rows several outcomes were legitimate: judged by the one taken{wider}")
    for error in certificate.own_errors:
        out.print(f"  own error  {escape(str(error))}  {escape(error.case)}")
    for tried in certificate.inferred:
        ratio = float(tried["worst_ratio"])
        out.print(f"  contract   {tried['contract']}: {tried['verdict']}, worst error/budget {ratio:.3g}  {escape(tried['case'])}")
    if certificate.verdict == "inconclusive":
        out.print(f"  not ruled out  {', '.join(_grouped(result.not_ruled_out)) or 'nothing, but too few cases were run'}")
    for finding, explained in result.findings:
        show_finding(out, finding, explained, implementation, result.trigger)


def _grouped(mistakes: list[str]) -> list[str]:
    """Names with their tile sizes together: "a (tile 16)", "a (tile 32)" become "a (tile 16, 32)"."""
    tiles: dict[str, list[str]] = {}
    for mistake in mistakes:
        name, _, tile = mistake.partition(" (tile ")
        tiles.setdefault(name, []).extend([tile.rstrip(")")] if tile else [])
    return [f"{name} (tile {', '.join(sizes)})" if sizes else name for name, sizes in tiles.items()]


def show_finding(
    out: Console, finding: Finding, explained: list[str], implementation: Implementation, trigger: Trigger | None = None
) -> None:
    """What was expected, got and allowed, where, the case, when it happens, what explains it, and its replay."""
    out.print(f"  [bold]{finding.kind}[/]  {escape(finding.message)}")
    if finding.got is not None:
        ratio = f", error/budget {finding.ratio:.3g}"
        out.print(
            f"  expected {finding.expected:.9g}, got {finding.got:.9g}, allowed {finding.budget:.3g}{ratio} at {escape(finding.where)}"
        )
    out.print(f"  case       {escape(str(finding.case))}")
    if trigger is not None:
        out.print(f"  happens    {escape(str(trigger))}")
        if trigger.condition:
            out.print(f"  left out by --restrict {escape(shlex.quote(f'not ({trigger.condition})'))}")
    pitfalls = {pitfall.name: pitfall for pitfall in pitfalls_for(finding.case.method)}
    for text in explained:
        known = [pitfalls[name] for name in pitfalls_named(text) if name in pitfalls]
        out.print(f"  explained by {escape(': '.join([text, *(f'{pitfall.explanation} ({pitfall.citation})' for pitfall in known)]))}")
    if finding.reads:
        out.print(f"  reads      {escape(finding.reads)}")
    if finding.details:
        last = [line for line in finding.details.strip().splitlines() if line.strip()][-4:]
        out.print("\n".join(f"  | {escape(line)}" for line in last))
    out.print(f"  replay     {escape(replay_line(implementation, finding))}")


def show_judgement(judgement: Judgement, implementation: Implementation) -> None:
    """The outcome of a replay."""
    out = _console()
    if judgement.finding is None:
        out.print(f"[{COLOURS['certified']}]PASSES[/]  error/budget {judgement.ratio:.3g}  {escape(str(judgement.case))}")
    else:
        out.print(f"[{COLOURS['refuted']}]FAILS[/]  {escape(implementation.name)}")
        show_finding(out, judgement.finding, [], implementation)


def show_list(implementations: list[Implementation], problems: list[tuple[str, str]]) -> None:
    """Registered implementations by method, and what could not be loaded."""
    from oracle import METHODS

    out = _console()
    for name, method in METHODS.items():
        out.print(f"[bold]{name}[/]  {escape(method.summary)}")
        own = [implementation for implementation in implementations if implementation.method == name]
        for implementation in own:
            out.print(f"  {escape(implementation.name):30} {escape(implementation.description)} ({', '.join(implementation.dtypes)})")
    for source, reason in problems:
        out.print(_cannot_load(source, reason))


class Measuring:
    """What a benchmark is at, on a terminal. Use as a context manager."""

    def __init__(self) -> None:
        errors = _console(to_stderr=True)
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=errors,
            transient=True, disable=not errors.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("measuring", total=None)

    def __enter__(self) -> Measuring:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def progress(self, row: Row, done: int, total: int) -> None:
        """Say what was measured last, as the `done`-th of `total`."""
        self.step(f"{row.name} at {row.length}", done, total)

    def step(self, what: str, done: int, total: int) -> None:
        """Say what was done last."""
        self._progress.update(self._task, description=f"measured {escape(what)}", completed=done, total=total)


def show_bench(rows: Sequence[Row]) -> None:
    """A table of what was measured, and what its columns mean."""
    shown = Table(box=None, pad_edge=False)
    for heading in ("implementation", "method"):
        shown.add_column(heading, overflow="fold")
    for heading in ("tokens", "ms", "spread", "doubling", "speed", "MiB", "doubling", "relative error"):
        shown.add_column(heading, justify="right")
    for row in rows:
        if row.error:
            shown.add_row(escape(row.name), row.method, str(row.length), f"[{COLOURS['error']}]{escape(row.error)}[/]")
            continue
        numbers = (
            _figure(row.seconds, 1e3, ".4g"), _figure(row.spread, 100, ".0f", " %"), _figure(row.doubling, 1, ".2f"),
            _figure(row.speed, 1, ".2f"), _figure(row.peak_bytes, 2**-20, ".2f"), _figure(row.doubling_memory, 1, ".2f"),
            _figure(row.relative_error, 1, ".2g"),
        )  # fmt: skip
        shown.add_row(escape(row.name), row.method, str(row.length), *numbers)
    out = Console(highlight=False, emoji=False, width=None if Console().is_terminal else 200)
    out.print(shown)
    out.print(
        "ms: median of a call, all implementations in turns in one process; spread: half the distance of its quartiles; doubling: over "
        "half as many tokens; speed: of standard attention of the same backend over this; MiB: growth of memory in use during a call, as "
        "the system counts it; relative error: Frobenius norm against the oracle, where it is asked. Another load moves all times."
    )


def show_table(table: Sequence[Mapping[str, Any]], note: str = "") -> None:
    """A table of any columns, numbers to four digits, and what they mean."""
    shown = Table(box=None, pad_edge=False)
    for name in table[0] if table else ():
        shown.add_column(name, justify="left" if isinstance(table[0][name], str) else "right", overflow="fold")
    for row in table:
        shown.add_row(*(escape(value if isinstance(value, str) else "" if value is None else f"{value:.4g}") for value in row.values()))
    out = Console(highlight=False, emoji=False, width=None if Console().is_terminal else 200)
    out.print(shown)
    if note:
        out.print(escape(note))


def show_claims(examined: Sequence[Examined]) -> None:
    """The verdict of each claim, the numbers that it rests on, and what there is to say of it."""
    from conformance.claims.document import figure_of, shown

    colours = {"reproduced": "certified", "not reproduced": "refuted", "reproduced in part": "inconclusive", "cannot run here": "error"}
    out = _console()
    for one in examined:
        out.print(f"[{COLOURS[colours[one.verdict]]}]{one.verdict.upper():18}[/] {one.claim.name}: {escape(one.claim.statement)}")
        out.print(f"  published  {escape(figure_of(one.claim))} ({escape(one.claim.source)})")
        for each, agrees in zip(one.measurements, one.agreeing, strict=True):
            word = {True: "agrees", False: "disagrees", None: "beside"}[agrees]
            out.print(f"  {word:10} {escape(shown(one.claim, each))}")
        for word, text in (("lacks", one.reason), ("remark", one.claim.remark)):
            if text:
                out.print(f"  {word:10} {escape(text)}")
    counts = Counter(one.verdict for one in examined)
    out.print(", ".join(f"[{COLOURS[colours[verdict]]}]{count} {verdict}[/]" for verdict, count in counts.items()))


def _figure(value: float | None, factor: float, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value * factor:{form}}{unit}"


def show_checks(checks: Iterable[Check]) -> Iterator[Check]:
    """Print each check of ``attest doctor`` as it comes, and hand it on."""
    out = _console()
    words = {True: "[bold green]yes[/]", False: "[bold red]no [/]", None: "[bold yellow]-  [/]"}
    for check in checks:
        out.print(f"{words[check.works]}  {escape(check.name):24} {escape(check.says)}")
        yield check


def _cannot_load(source: str, reason: str) -> str:
    return f"cannot load {escape(source)}: {escape(reason)}"


def show_method(method: Method) -> None:
    """The specification, its signature, options, conventions, source and pitfalls."""
    out = _console()
    out.print(f"[bold]{method.name}[/]\n\n{escape_markup(inspect.getdoc(method.spec) or '')}\n")
    facts: dict[str, Any] = {"shapes": method.signature, "source": method.source}
    facts |= {f"condition {condition}": words for condition, words in method.where.items()}
    for name, value in facts.items():
        out.print(f"[bold]{escape(name)}[/]  {escape(str(value))}")
    out.print("\n[bold]names in conditions[/] (--restrict)")
    meanings: dict[str, list[str]] = {}
    for name, meaning in condition_names(method).items():
        meanings.setdefault(meaning, []).append(name)
    for meaning, names in meanings.items():
        out.print(f"  {', '.join(names)}: {meaning}")
    out.print("\n[bold]conventions[/] (the default first)")
    for name, values in conventions_of(method).items():
        out.print(f"  {name}: {', '.join(values)}")
    out.print("\n[bold]known mistakes[/]")
    for pitfall in pitfalls_for(method.name):
        out.print(f"  {pitfall.name}: {escape(pitfall.explanation)} ({escape(pitfall.citation)})")
    out.print("\n[bold]invariants[/]")
    for invariant in invariants_for(method.name):
        out.print(f"  {invariant.name}: {escape(invariant.statement)}")
    out.print("\n[bold]specification[/]\n")
    out.print(escape_markup(inspect.getsource(method.spec)))
