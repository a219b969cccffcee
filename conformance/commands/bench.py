"""``attest bench``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from conformance.commands.files import write

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
@click.option("--json", "json_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write all that was measured.")
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write the table.")
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write plots: .svg, .png or .pdf.")
def bench(json_file: str | None, csv_file: str | None, plot_file: str | None, **asked: Any) -> None:
    """Measure time, memory and accuracy of implementations side by side.

    Standard attention of the same backend is measured with them; the column "speed" is its time over theirs.
    """
    from conformance.benching.run import Bench, document, table
    from conformance.benching.run import bench as run
    from conformance.report import console

    request = Bench(**asked)
    for kind, file in (("json", json_file), ("csv", csv_file), ("plot", plot_file)):
        if file is not None:
            write(kind, file, "")  # what is measured should not be lost
    with console.Measuring() as measuring:
        rows = run(request, measuring.progress)
    console.show_bench(rows)
    if json_file is not None:
        write("json", json_file, json.dumps(document(request, rows), indent=1))
    if csv_file is not None:
        write("csv", csv_file, table(rows).rstrip("\n"))
    if plot_file is not None:
        from conformance.benching.plots import draw

        draw(rows, plot_file)
    sys.exit(0 if all(not row.error for row in rows) else 1)
