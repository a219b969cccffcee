"""``attest claims``."""

from __future__ import annotations

import json
import sys

import click

from conformance.commands.files import write

__all__ = ["claims"]


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "only_list", is_flag=True, help="List the claims without looking into them.")
@click.option("--runs", type=int, default=7, show_default=True, help="Measurements of each call, taken in turns.")
@click.option("--threads", type=int, default=0, show_default=True, help="That kernels may use; 0 for their own choice.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write every number; - for stdout.")
@click.option("--markdown", "markdown_file", type=click.Path(dir_okay=False), metavar="FILE", help="Write the page, as docs/claims.md.")
def claims(
    names: tuple[str, ...], only_list: bool, runs: int, threads: int, json_file: str | None, markdown_file: str | None
) -> None:  # fmt: skip
    """Look into published figures on this machine.

    NAME is that of a claim, or a pattern such as 'memory-*'; without one, all are looked into. Exit codes: 0 all reproduced, 1 one is
    not or in part, 2 usage, 3 one cannot be looked into here.
    """
    from conformance.benching.run import Bench, check_request
    from conformance.claims.declared import chosen_claims
    from conformance.claims.document import document, figure_of, markdown
    from conformance.claims.laboratory import Laboratory
    from conformance.claims.verdicts import examine, exit_code
    from conformance.report import console

    check_request(Bench(runs=runs, threads=threads))
    chosen = chosen_claims(names)
    if only_list:
        console.show_table([{"claim": one.name, "published": figure_of(one), "statement": one.statement} for one in chosen])
        return
    for kind, file in (("json", json_file), ("markdown", markdown_file)):
        if file not in (None, "-"):
            write(kind, file, "")  # what is measured should not be lost
    with console.Measuring() as measuring:
        examined = list(examine(chosen, Laboratory(chosen, runs=runs, threads=threads, step=measuring.step)))
    if json_file == "-":
        click.echo(json.dumps(document(examined), indent=1))
    else:
        console.show_claims(examined)
    if json_file not in (None, "-"):
        write("json", json_file, json.dumps(document(examined), indent=1))
    if markdown_file is not None:
        write("markdown", markdown_file, markdown(examined, runs, threads))
    sys.exit(exit_code(examined))
