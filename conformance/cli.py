"""The command line: ``attest list | certify | campaign | replay | explain | show | bench | claims | guide | doctor``.

Imports what a command needs when it runs. Commands about implementations are here; every other one has a module of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

from conformance.commands.bench import bench
from conformance.commands.claims import claims
from conformance.commands.files import write
from conformance.commands.guide import guide
from conformance.commands.show import show

if TYPE_CHECKING:
    from conformance.certificate import Certificate
    from conformance.certify import Request

__all__ = ["Configured", "certify", "check_files", "conclude", "hunting_request", "main"]

Command = TypeVar("Command", bound=Callable[..., Any])

INTERRUPTED = 130  # as a shell reports a command that Ctrl-C ended


class Configured(click.Command):
    """A command whose options have the defaults that the project's settings give them."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Look up the settings before the arguments, which go before them."""
        from conformance.settings import project_settings

        context.default_map = {name.replace("-", "_"): value for name, value in project_settings().items()}
        return super().parse_args(context, arguments)


# Commands with a module of their own, which uses this one.
ELSEWHERE = {"campaign": "conformance.campaign.command"}


class _Group(click.Group):
    """Turns a usage error anywhere below into one sentence on stderr and exit code 2, and Ctrl-C into one and exit code 130."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), *ELSEWHERE])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in ELSEWHERE:
            command: click.Command = getattr(import_module(ELSEWHERE[name]), name)
            return command
        return super().get_command(context, name)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            click.echo("attest: interrupted", err=True)
            context.exit(INTERRUPTED)
        except ValueError as error:
            from conformance.errors import UsageError

            if not isinstance(error, UsageError):
                raise
            click.echo(f"attest: {error}", err=True)
            context.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="attest-attention", prog_name="attest")
def main() -> None:
    """Decide whether an attention kernel is right.

    Exit codes: 0 certified, 1 refuted, 2 usage or loading error, 3 inconclusive, 130 interrupted.
    """


def _declarations(command: Command) -> Command:
    """The options by which an implementation is declared, alike in certify and replay."""
    for option in (
        click.option("--layout", help='Order of the axes of its arrays, such as "b l h d".'),
        click.option("--restrict", "restrictions", metavar="CONDITION", multiple=True, help='Judge only such calls: "h == g".'),
        click.option("--option", "options", metavar="NAME", multiple=True, help="That it supports, where **kwargs does not tell."),
        click.option("--convention", "conventions", metavar="NAME=VALUE", multiple=True, help="Such as causal_alignment=top-left."),
        click.option("--contract", metavar="C|infer", help="Precision contract; by default the one named like the dtype."),
        click.option("--device", default="cpu", show_default=True, help="Where PyTorch runs."),
        click.option("--backend", help="Whose arrays it takes: numpy or torch."),
        click.option("--method", help="The method that it implements, as in 'attest list', or path/file.py:name of your own."),
        click.option("--no-isolation", is_flag=True, help="Run it in this process, for a debugger."),
    ):  # fmt: skip
        command = option(command)
    return command


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(as_json: bool) -> None:
    """List methods and registered implementations."""
    from conformance.certify import Request, implementations
    from conformance.report import console
    from oracle import METHODS

    found, problems = implementations(Request())
    if as_json:
        methods = {
            name: {"summary": method.summary, "signature": str(method.signature), "source": method.source}
            for name, method in METHODS.items()
        }
        listed = [implementation.to_json() for implementation in found]
        click.echo(json.dumps({"schema": 1, "methods": methods, "implementations": listed, "problems": problems}, indent=1))
    else:
        console.show_list(found, problems)


@main.command(cls=Configured)
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@_declarations
@click.option("--dtype", "dtypes", multiple=True, metavar="T", help="float64, float32, float16 or bfloat16; repeatable.")
@click.option("--max-examples", type=int, default=600, show_default=True, metavar="N", help="Cases for each target and dtype.")
@click.option("--budget", type=float, default=120.0, show_default=True, metavar="SECONDS", help="Time limit for each target and dtype.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="The same seed gives the same hunt.")
@click.option(
    "--database",
    default=".attest",
    show_default=True,
    envvar="ATTEST_DATABASE",
    show_envvar=True,
    metavar="DIR|URL|none",
    help="Where failing cases are kept, to come first next time: a folder, or redis://HOST:PORT/NUMBER.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write the certificates; - for stdout.")
@click.option("--html", "html_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write a report to look at: one HTML file.")
@click.option("--quiet", "-q", is_flag=True, help="Print only what is not certified, and the counts.")
@click.option("--github", is_flag=True, help="Print what is not certified as annotations of a GitHub workflow, too.")
def certify(
    targets: tuple[str, ...], dtypes: tuple[str, ...], max_examples: int, budget: float, seed: int, database: str,
    json_file: str | None, html_file: str | None, quiet: bool, github: bool, **declared: Any,
) -> None:  # fmt: skip
    """Certify implementations, or refute them with a case.

    TARGET is a registered name, package.module:function or path/file.py:function; without one, everything registered is
    certified. The table [tool.attest] of pyproject.toml may set max-examples, budget, seed, database and dtypes.
    """
    from conformance.certify import certify as run
    from conformance.report import console

    request = hunting_request(targets, dtypes, max_examples, budget, seed, database, **declared)
    check_files(json=json_file, html=html_file)
    interrupted = False
    with console.Display(silent=json_file == "-", quiet=quiet) as display:
        try:
            run(request, display.watcher)
        except KeyboardInterrupt:
            interrupted = True
    conclude(display.certificates, display.problems, interrupted, json_file, html_file, github)


def hunting_request(
    targets: tuple[str, ...], dtypes: tuple[str, ...], max_examples: int, budget: float, seed: int, database: str, **declared: Any
) -> Request:  # fmt: skip
    """What the options of a command that hunts ask for, checked as far as that goes without a target."""
    from conformance.certify import check
    from conformance.hunting.search import Effort

    request = _request(targets, dtypes, Effort(max_examples, budget, seed=seed), **declared)
    request = replace(request, database=None if database == "none" else database)
    check(request)
    return request


def check_files(**files: str | None) -> None:
    """Find out that they can be written: a hunt whose result cannot be kept had better not begin."""
    for name, file in files.items():
        if file not in (None, "-"):
            write(name, file, "")


def conclude(
    certificates: list[Certificate], problems: list[tuple[str, str]], interrupted: bool, json_file: str | None, html_file: str | None,
    github: bool, more: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write what was asked for, and end with the exit code of the verdicts.

    Args:
        certificates, problems, interrupted: as of `conformance.certificate.document`.
        json_file, html_file, github: as of ``attest certify``.
        more: entries of the JSON document that only one command has.
    """
    from conformance.certificate import document, exit_code

    if json_file is not None:
        made = document(certificates, problems=problems, interrupted=interrupted)
        text = json.dumps({**made, **(more or {})}, indent=1)
        if json_file == "-":
            click.echo(text)
        else:
            write("json", json_file, text)
    if html_file is not None:
        from conformance.report.html import render

        write("html", html_file, render(certificates, problems))
    for certificate in certificates:
        if certificate.error:
            click.echo(f"attest: {certificate.error}", err=True)
    if github:
        from conformance.report.github import workflow_commands

        for line in workflow_commands(certificates):
            click.echo(line, err=json_file == "-")
    if interrupted:
        raise KeyboardInterrupt
    sys.exit(exit_code(certificates))


@main.command()
@click.argument("case")
@click.option("--target", help="What to call, where the case does not say.")
@_declarations
def replay(case: str, target: str | None, **declared: Any) -> None:
    """Run one CASE again, from its one-line form."""
    from conformance.replay import replay as run
    from conformance.report import console

    judgement, implementation = run(case, target, _request((), (), None, **declared))
    console.show_judgement(judgement, implementation)
    sys.exit(0 if judgement.finding is None else 1)


@main.command()
@click.argument("method")
def explain(method: str) -> None:
    """Show what a METHOD means: formula, shapes, options, source, and its known mistakes."""
    from conformance.methods import load_installed, resolve_method
    from conformance.report import console
    from oracle import get_method

    load_installed()
    console.show_method(get_method(resolve_method(method)))


@main.command()
def doctor() -> None:
    """Say what can run here, and why the rest cannot."""
    from conformance.doctor import examine
    from conformance.report import console

    checks = list(console.show_checks(examine()))
    sys.exit(0 if all(check.works is not False for check in checks) else 2)


def _request(
    targets: tuple[str, ...], dtypes: tuple[str, ...], effort: Any, *, method: str | None, backend: str | None, device: str,
    contract: str | None, options: tuple[str, ...], conventions: Iterable[str], restrictions: Iterable[str], layout: str | None,
    no_isolation: bool,
) -> Request:  # fmt: skip
    from conformance.certify import Request
    from conformance.errors import UsageError
    from conformance.hunting.search import Effort
    from conformance.methods import load_installed, resolve_method
    from conformance.registry import BACKENDS

    load_installed()
    method = None if method is None else resolve_method(method)
    if backend is not None and backend not in BACKENDS:
        raise UsageError(f"backend={backend!r}, but should be one of {', '.join(BACKENDS)}")
    pairs = {}
    for text in conventions:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"convention={text!r}, but should be NAME=VALUE")
        pairs[name] = value
    return Request(
        targets=targets, method=method, backend=backend, dtypes=dtypes, contract=contract, options=options, conventions=pairs,
        restrictions=dict.fromkeys(restrictions, "declared on the command line"), layout=layout, device=device,
        effort=effort or Effort(), isolated=not no_isolation,
    )  # fmt: skip


for command in (bench, claims, guide, show):
    main.add_command(command)


if __name__ == "__main__":
    main()
