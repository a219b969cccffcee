"""``attest show``."""

from __future__ import annotations

import click

__all__ = ["show"]


@click.group()
def show() -> None:
    """Draw what a method means."""


@show.command()
@click.argument("method")
@click.argument("options", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--out", metavar="FILE", help="Picture to write: .png, .svg or .pdf; METHOD.png by default.")
def pattern(method: str, options: tuple[str, ...], out: str | None) -> None:
    """Draw the weight of every key for every query.

    The weights are those of the method's own specification. NAME=VALUE sets a dimension (l=64), an option (window=8), a
    convention, or the recipe of an array (q=rising(0)), as in the line of a case.
    """
    from conformance.methods import load_installed, resolve_method
    from conformance.showing.figure import draw, pyplot_or_error
    from conformance.showing.weights import asked_case, weights_of

    pyplot_or_error()  # first: without it, nothing else is of use
    load_installed()
    case, conventions = asked_case(resolve_method(method), options)
    maps = weights_of(case, conventions)
    out = f"{case.method}.png" if out is None else out
    said = [f"{name}={value}".replace(" ", "") for group in (case.dims, case.options, conventions) for name, value in group.items()]
    draw(maps, f"{case.method} {' '.join(said)}", out)
    for one in maps:
        read = float((one.weights != 0).mean())
        click.echo(f"{one.title or 'weights'}: {' x '.join(map(str, one.weights.shape))} ({' x '.join(one.axes)}), {read:.1%} not zero")
    click.echo(f"written to {out}")
