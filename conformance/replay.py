"""Replay: one case from its line, with the declarations that stand before it.

target=my_kernels.py:flash backend=torch causal_alignment=top-left attention float32 b=1 h=1 ...
"""

from __future__ import annotations

import shlex
from dataclasses import replace

from conformance.cases import Case, CaseError, parse_case
from conformance.certify import Request
from conformance.errors import UsageError
from conformance.examine import Examiner
from conformance.invariants.check import require_invariant
from conformance.judge import Judgement
from conformance.methods import load_installed, resolve_method
from conformance.registry import Implementation
from oracle import METHODS

__all__ = ["replay"]

PREFIX = "attest replay "


def replay(line: str, target: str | None, request: Request) -> tuple[Judgement, Implementation]:
    """Examine the case of a line.

    Args:
        line: declarations, then the case.
        target: where the line does not name one.
        request: declarations from the command line, which the line's own complete.

    Raises:
        UsageError: the line is no case, or its target cannot be loaded.
    """
    try:
        if line.startswith(PREFIX):
            line = " ".join(shlex.split(line[len(PREFIX) :]))
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"case {line!r}, but its quotes should match ({error})") from None
    load_installed()
    for word in words:
        if word.startswith("method="):
            resolve_method(word.removeprefix("method="))
    start = next((index for index, word in enumerate(words) if word in METHODS), None)
    if start is None:
        raise UsageError(f"case {line!r}, but should name a method: {', '.join(METHODS)}")
    declared = dict(word.partition("=")[::2] for word in words[:start] if not word.startswith("method="))
    try:
        case = parse_case(" ".join(words[start:]))
    except CaseError as error:
        raise UsageError(str(error)) from None
    except ValueError as error:
        raise UsageError(f"case {line!r} has a part that cannot be read: {error}") from None
    try:
        for one in (*case.earlier, case):
            one.specification.check(one.arguments())
    except (ValueError, KeyError, IndexError, TypeError, MemoryError, OverflowError) as error:
        reason = f"{error} does not belong there" if isinstance(error, KeyError) else error
        raise UsageError(f"case {line!r} describes no call of {case.method}: {reason}") from None
    target = target or declared.pop("target", None)
    if not target:
        raise UsageError("the case names no target, but should: put target=path/file.py:function before it, or pass --target")
    declared.pop("target", None)
    backend = request.backend or declared.pop("backend", None)
    layout = declared.pop("layout", "").replace(",", " ") or None
    contract = request.contract or declared.pop("contract", None)
    options = [option for option in declared.pop("options", "").split(",") if option]
    declared.pop("backend", None)
    with replace(request, backend=backend).sandbox() as sandbox:
        implementation = sandbox.load(target, method=case.method, backend=backend)[-1].declaring(
            options=[*options, *request.options], conventions={**declared, **request.conventions},
            restrictions=request.restrictions, layout=request.layout or layout, contract=contract,
        )  # fmt: skip
        if implementation.method != case.method:
            raise UsageError(f"{target} implements {implementation.method}, but the case is one of {case.method}")
        _check_keywords(case, implementation)
        examiner = Examiner(implementation, case.dtype, sandbox)
        require_invariant(case, implementation, examiner.judge.contract)
        return examiner.examine(case), implementation


def _check_keywords(case: Case, implementation: Implementation) -> None:
    required = {spec.name for spec in case.specification.positional}
    for name in [*case.options, *(array for array in case.arrays if array not in required)]:
        if name not in implementation.options:
            declare = "; declare it with --option if it does" if implementation.any_keyword else ""
            raise UsageError(f"the case sets {name}, but should set only what {implementation.name} takes{declare}")
    for name in case.tunables:
        if name not in implementation.tunables:
            tunables = ", ".join(implementation.tunables) or "none"
            raise UsageError(f"case part '{name}={case.tunables[name]}', but should be a tunable of {implementation.name} ({tunables})")
