"""Replay: one case from its line, with the declarations that stand before it.

target=my_kernels.py:flash backend=torch causal_alignment=top-left attention float32 b=1 h=1 ...
"""

from __future__ import annotations

import shlex
from dataclasses import replace

from conformance.cases import CaseError, parse_case
from conformance.certify import Request
from conformance.errors import UsageError
from conformance.examine import Examiner
from conformance.judge import Judgement
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
    start = next((index for index, word in enumerate(words) if word in METHODS), None)
    if start is None:
        raise UsageError(f"case {line!r}, but should name a method: {', '.join(METHODS)}")
    declared = dict(word.partition("=")[::2] for word in words[:start])
    try:
        case = parse_case(" ".join(words[start:]))
    except CaseError as error:
        raise UsageError(str(error)) from None
    try:
        for one in (*case.earlier, case):
            one.specification.check(one.arguments())
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(f"case {line!r} describes no call of {case.method}: {error}") from None
    target = target or declared.pop("target", None)
    if target is None:
        raise UsageError("the case names no target, but should: put target=path/file.py:function before it, or pass --target")
    declared.pop("target", None)
    backend = request.backend or declared.pop("backend", None)
    layout = declared.pop("layout", "").replace(",", " ") or None
    contract = request.contract or declared.pop("contract", None)
    declared.pop("backend", None)
    with replace(request, backend=backend).sandbox() as sandbox:
        implementation = sandbox.load(target, method=case.method, backend=backend)[-1].declaring(
            conventions={**declared, **request.conventions}, restrictions=request.restrictions,
            layout=request.layout or layout, contract=contract,
        )  # fmt: skip
        if implementation.method != case.method:
            raise UsageError(f"{target} implements {implementation.method}, but the case is one of {case.method}")
        return Examiner(implementation, case.dtype, sandbox).examine(case), implementation
