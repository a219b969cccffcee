"""``attest bench``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from conformance.commands.files import write

if TYPE_CHECKING:
    from conformance.benching.run import Bench

__all__ = ["bench"]


@click.command()
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--method", help="Of targets that are not registered; a filter where there are no targets.")
@click.option("--backend", help="The same.")
@click.option(
    "--length", "lengths", type=int, multiple=True, default=(256, 512, 1024, 2048), show_default=True,
    help="Of queries and keys; repeatable.",
)  # fmt: skip
@click.option("--heads", type=int, default=1, show_default=True)
@click.option("--kv-heads", type=int, default=1, show_default=True)
@click.option("--batch", type=int, default=1, show_default=True)
@click.option("--width", type=int, default=64, show_default=True, help="Of queries, keys and values.")
@click.option("--dtype", default="float32", show_default=True)
@click.option("--runs", type=int, default=7, show_default=True, help="Measurements of each, taken in turns.")
@click.option("--threads", type=int, default=0, show_default=True, help="That products may use; 0 for the backend's own choice.")
@click.option("--device", default="cpu", show_default=True, help="Where PyTorch runs.")
@click.option("--option", "options", metavar="NAME=VALUE", multiple=True, help="Of the methods that have it, such as window=128.")
@click.option("--study", metavar="NAME", help="Instead: decode, balance, speculative, chebyshev or loops; see docs/bench.md.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write all that was measured.")
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write the table.")
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write plots: .svg, .png or .pdf.")
def bench(
    study: str | None, json_file: str | None, csv_file: str | None, plot_file: str | None, options: tuple[str, ...], **asked: Any
) -> None:  # fmt: skip
    """Measure time, memory and accuracy of implementations side by side.

    Standard attention of the same backend is measured with them; the column "speed" is its time over theirs. With --study, make the
    table of a study instead.
    """
    from conformance.benching.run import Bench, document, table
    from conformance.errors import UsageError

    for word in options:
        if "=" not in word:
            raise UsageError(f"option={word!r}, but should be NAME=VALUE")
    if study is not None and plot_file is not None:
        raise UsageError("plot is given with study, but should be given without: a study is a table (--csv or --json)")
    request = Bench(**asked, options={name: value for name, _, value in (word.partition("=") for word in options)})
    for kind, file in (("json", json_file), ("csv", csv_file), ("plot", plot_file)):
        if file is not None:
            write(kind, file, "")  # what is measured should not be lost
    rows, failed = _measured(request) if study is None else _studied(request, study)
    if json_file is not None:
        write("json", json_file, json.dumps(document(request, rows), indent=1))
    if csv_file is not None:
        write("csv", csv_file, table(rows).rstrip("\n"))
    if plot_file is not None:
        from conformance.benching.plots import draw

        draw(rows, plot_file)
    sys.exit(1 if failed else 0)


def _measured(request: Bench) -> tuple[Any, bool]:
    """The rows of implementations, and whether one of them failed."""
    from conformance.benching.run import bench as run
    from conformance.report import console

    with console.Measuring() as measuring:
        rows = run(request, measuring.step)
    console.show_bench(rows)
    return rows, any(row.error for row in rows)


def _studied(request: Bench, name: str) -> tuple[Any, bool]:
    """The rows of a study."""
    from conformance.benching.run import check_request
    from conformance.benching.studies import study_named
    from conformance.report import console

    study = study_named(name)
    check_request(request)
    with console.Measuring() as measuring:
        rows = study.run(request, measuring.step)
    console.show_table(rows, study.note)
    return rows, False
