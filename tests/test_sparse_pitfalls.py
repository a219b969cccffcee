"""The pitfalls of global tokens on calls that have none: no mistake ends the run, and those that need a token do not apply."""

import pytest

from conformance.adequacy import lift, run_suspect, suspects
from conformance.cases.lines import parse_case

PLAIN = "local_global_attention float32 b=1 h=2 g=1 l={length} s={length} d=2 e=3 q=normal(0) k=normal(1) v=normal(2)"
OPTIONS = ("window=1", "window=0 causal=True", "window=3 global_rows=False global_self=False")


@pytest.mark.parametrize("length", [0, 1, 4])
@pytest.mark.parametrize("options", OPTIONS)
def test_without_global_tokens_their_mistakes_do_not_apply_and_none_ends_the_run(options, length):
    """`global-tokens-taken-for-range` looked for the first of none."""
    case = parse_case(f"{PLAIN.format(length=length)} global_tokens=() {options}")
    lifted = lift(case, case.arguments())
    returned = {suspect.name: run_suspect(suspect, *lifted) for suspect in suspects("local_global_attention", ("block_k",))}
    assert {name for name in returned if "global-token" in name} >= {"global-tokens-taken-for-range", "global-token-zero-forgotten"}
    assert all(outputs is None for name, outputs in returned.items() if "global-token" in name)
    assert length < 4 or any(outputs is not None for outputs in returned.values())
