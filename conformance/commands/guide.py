"""``attest guide``."""

from __future__ import annotations

import json
import sys

import click

from conformance.commands.files import write

__all__ = ["guide"]


@click.command()
@click.option("--length", type=int, default=8192, show_default=True, help="Tokens of the context.")
@click.option("--task", default="prefill", show_default=True, help="train, prefill or decode.")
@click.option(
    "--quality", default="exact", show_default=True, help="The least that will do: exact, close, recall or trained; see docs/guide.md."
)
@click.option("--memory", type=float, metavar="MIB", help="That it may take besides weights and its arguments; no limit by default.")
@click.option("--heads", type=int, default=32, show_default=True)
@click.option("--width", type=int, default=128, show_default=True, help="Of a head.")
@click.option("--layers", type=int, default=32, show_default=True)
@click.option("--itemsize", type=int, default=2, show_default=True, help="Bytes of a number.")
@click.option("--measured", metavar="FILE", help="Times from 'attest bench --json FILE', to decide by instead of formulas.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", "markdown_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write the page, as docs/guide.md.")
def guide(
    length: int, task: str, quality: str, memory: float | None, heads: int, width: int, layers: int, itemsize: int,
    measured: str | None, as_json: bool, markdown_file: str | None,
) -> None:  # fmt: skip
    """Say which attention to take, and why.

    The best choice comes first. Exit codes: 0 something fits, 1 nothing does, 2 usage.
    """
    from conformance.guide.advise import Question, advise, read_measurements
    from conformance.guide.candidates import Sizes
    from conformance.guide.document import markdown, rows_of
    from conformance.report import console

    sizes = Sizes(length, heads, width, layers, itemsize)
    question = Question(sizes, task, quality, None if memory is None else memory * 2**20)
    measurements = None if measured is None else read_measurements(measured)
    advice = advise(question, measurements)
    if markdown_file is not None:
        write("markdown", markdown_file, markdown(sizes, measurements, "" if measured is None else f"formulas and {measured}"))
    if as_json:
        click.echo(json.dumps({"schema": 1, "advice": [one.to_json() for one in advice]}, indent=1))
    else:
        first = advice[0]
        click.echo(f"take {first.candidate.name}: {first.why}; but {first.candidate.against}" if first.fits else "nothing fits")
        console.show_table(rows_of(advice), NOTE)
    sys.exit(0 if advice[0].fits else 1)


NOTE = (
    "cost: multiplications of a query over standard attention's, or while decoding bytes read over its cache; MiB: that it takes besides "
    "weights and arguments; error: against softmax attention on standard normal numbers, measured by the oracle; mistakes: known ones that "
    "an implementation can make; ms: as measured"
)
