"""Certification: from targets to certificates. What the command line, the plugin and a program call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from conformance.certificate import Certificate
from conformance.errors import UsageError
from conformance.examine import Examiner
from conformance.hunting.hunt import Hunt, HuntResult
from conformance.hunting.memory import Memory
from conformance.hunting.search import LEAST_SHARE, Effort
from conformance.isolation.backends import BACKENDS
from conformance.isolation.sandbox import InProcess, Limits, Sandbox, WorkerDied
from conformance.judge import Finding
from conformance.registry import Implementation
from oracle.conditions import ConditionError
from oracle.formats import FORMATS
from oracle.readings.contract import CONTRACTS, PrecisionContract, contract_for

__all__ = ["Request", "Watcher", "certify", "certify_target", "check", "implementations", "registered_targets"]

INFER = "infer"


@dataclass(frozen=True)
class Request:
    """What to certify, and how.

    Attributes:
        targets: registered names, ``module:function`` or ``path/file.py:function``; none for everything registered that is not optional.
        method, backend: of targets that are not registered; a filter where there are no targets.
        dtypes: instead of the declared ones.
        contract: instead of the declared one; ``infer`` for the tightest that holds.
        options, conventions, restrictions, layout: declared on top.
        device: where torch or jax runs.
        effort: of each hunt.
        database: folder or Redis address that remembers failing cases from run to run; None for none.
        isolated: whether implementations run in a process of their own.
    """

    targets: tuple[str, ...] = ()
    method: str | None = None
    backend: str | None = None
    dtypes: tuple[str, ...] = ()
    contract: str | None = None
    options: tuple[str, ...] = ()
    conventions: dict[str, str] = field(default_factory=dict)
    restrictions: dict[str, str] = field(default_factory=dict)
    layout: str | None = None
    device: str = "cpu"
    effort: Effort = field(default_factory=Effort)
    database: str | None = None
    limits: Limits = field(default_factory=Limits)
    isolated: bool = True

    def sandbox(self) -> Sandbox:
        """A place to run an implementation in."""
        return (Sandbox if self.isolated else InProcess)(self.limits, device=self.device)


@dataclass(frozen=True)
class Watcher:
    """What to tell as the work goes on; ``unloadable`` gets a source of implementations and the reason."""

    unloadable: Callable[[str, str], None] = lambda source, reason: None
    started: Callable[[Implementation, str], None] = lambda implementation, dtype: None
    progress: Callable[[Hunt], None] = lambda hunt: None
    finished: Callable[[Certificate], None] = lambda certificate: None


def implementations(request: Request) -> tuple[list[Implementation], list[tuple[str, str]]]:
    """Everything registered that fits a request, and the sources that could not be loaded, with reasons."""
    with request.sandbox() as sandbox:
        try:
            found, problems = sandbox.discover()
        except WorkerDied as death:
            raise UsageError(f"the registered implementations cannot be loaded: {death}") from None
    fitting = [
        implementation
        for implementation in found
        if request.backend in (None, implementation.backend) and request.method in (None, implementation.method)
    ]
    return fitting, _by_reason(problems)


def certify(request: Request, watcher: Watcher | None = None) -> list[Certificate]:
    """Certify each target in each of its dtypes. An error of one target becomes its certificate; the others go on."""
    watcher = watcher or Watcher()
    check(request)
    certificates = []
    for target in dict.fromkeys(request.targets or registered_targets(request, watcher)):
        for certificate in certify_target(request, target, watcher):
            certificates.append(certificate)
            watcher.finished(certificate)
    return certificates


def _by_reason(problems: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Where several sources cannot be loaded for one reason, such as a package that is not installed, it is told once."""
    sources: dict[str, list[str]] = {}
    for source, reason in problems:
        sources.setdefault(reason, []).append(source)
    return [(", ".join(together), reason) for reason, together in sources.items()]


def registered_targets(request: Request, watcher: Watcher) -> list[str]:
    """The names of everything registered that fits a request.

    Raises:
        UsageError: nothing does.
    """
    fitting, problems = implementations(request)
    for source, reason in problems:
        watcher.unloadable(source, reason)
    for implementation in fitting:
        if not implementation.optional and not implementation.runs_on(request.device):
            watcher.unloadable(implementation.name, _elsewhere(implementation, request.device))
    fitting = [implementation for implementation in fitting if implementation.runs_on(request.device)]
    if all(implementation.optional for implementation in fitting):
        filters = " and ".join(f"{name}={value!r}" for name in ("method", "backend") if (value := getattr(request, name)) is not None)
        raise UsageError(f"no registered implementation has {filters or 'loaded'}, but one should (see 'attest list')")
    return [implementation.name for implementation in fitting if not implementation.optional]


def check(request: Request) -> None:
    """Raise `UsageError` for what is wrong whatever the target."""
    Memory(request.database)
    for dtype in request.dtypes:
        if dtype not in FORMATS:
            raise UsageError(f"dtype={dtype!r}, but should be one of {', '.join(FORMATS)}")
    if request.contract not in (None, INFER, *CONTRACTS):
        raise UsageError(f"contract={request.contract!r}, but should be 'infer' or one of {', '.join(CONTRACTS)}")
    for name, value in (("max-examples", request.effort.examples), ("budget", request.effort.seconds)):
        if math.isnan(value) or value <= 0:
            raise UsageError(f"{name}={value}, but should be greater than 0")
    if request.effort.seed < 0:
        raise UsageError(f"seed={request.effort.seed}, but should be 0 or greater")


def certify_target(
    request: Request, target: str, watcher: Watcher, several: Callable[[list[str]], Iterable[Certificate]] | None = None
) -> Iterator[Certificate]:  # fmt: skip
    """Certify a target in each of its dtypes, one after the other in one worker: what a kernel keeps, it meets in the next dtype.

    Args:
        request, watcher: as of `certify`.
        target: what to certify.
        several: what comes of a target that stands for several; by default they are certified one after the other.
    """
    with request.sandbox() as sandbox:
        try:
            loaded = sandbox.load(target, method=request.method, backend=request.backend)
        except UsageError as error:
            yield Certificate(target, error=str(error))
            return
        if len(loaded) == 1:
            yield from _certify_loaded(request, target, loaded[0], sandbox, watcher)
            return
    targets = [implementation.target for implementation in loaded]
    if several is not None:
        yield from several(targets)
        return
    for one in targets:
        yield from certify_target(request, one, watcher)


def _certify_loaded(
    request: Request, target: str, implementation: Implementation, sandbox: Sandbox, watcher: Watcher
) -> Iterator[Certificate]:
    try:
        if not implementation.runs_on(request.device):
            raise UsageError(f"{target} {_elsewhere(implementation, request.device)}")
        declared = _declared(request, implementation)
    except UsageError as error:
        yield Certificate(target, error=str(error))
        return
    for dtype in dict.fromkeys(request.dtypes or declared.dtypes):
        watcher.started(declared, dtype)
        yield _hunt(request, target, declared, dtype, sandbox, watcher)


def _elsewhere(implementation: Implementation, device: str) -> str:
    """Why an implementation does not run on a device."""
    devices = implementation.devices or BACKENDS[implementation.backend].devices
    return f"runs on {' or '.join(devices)}, not on {device}: --device {devices[0]}"


def _declared(request: Request, implementation: Implementation) -> Implementation:
    for name, value in (("method", request.method), ("backend", request.backend)):
        if value is not None and getattr(implementation, name) != value:
            raise UsageError(
                f"{implementation.name} is registered for {name} {getattr(implementation, name)}, but {name}={value!r} was asked for"
            )
    contract = None if request.contract == INFER else request.contract
    for dtype in request.dtypes or implementation.dtypes:
        if contract is not None:
            try:
                contract_for(contract, dtype)
            except ValueError as error:
                raise UsageError(str(error)) from None
    return implementation.declaring(
        options=request.options, conventions=request.conventions, restrictions=request.restrictions, layout=request.layout,
        contract=contract,
    )  # fmt: skip


def _hunt(request: Request, target: str, implementation: Implementation, dtype: str, sandbox: Sandbox, watcher: Watcher) -> Certificate:
    certificate = Certificate(target, implementation, dtype, request.device)
    try:
        if request.contract == INFER:
            certificate.result = _infer(certificate, request, implementation, dtype, sandbox, watcher)
            certificate.implementation = certificate.result.implementation
        else:
            memory = Memory(request.database)
            remembered = memory.recall(implementation, dtype)
            result = Hunt(implementation, dtype, sandbox, request.effort, remembered=remembered, progress=watcher.progress).run()
            refuting = result.findings[0][0].case if result.findings else None
            certificate.result, certificate.implementation = result, result.implementation  # whatever becomes of remembering it
            memory.remember(implementation, dtype, refuting, passed=[] if refuting else remembered)
    except (UsageError, ConditionError) as error:
        certificate.error = str(error)
    certificate.device_name = sandbox.device_name
    return certificate


def _infer(
    certificate: Certificate, request: Request, implementation: Implementation, dtype: str, sandbox: Sandbox, watcher: Watcher
) -> HuntResult:
    """Try the presets from the tightest: the first that holds is the inferred one; the looser ones get a look for their ratio.

    Where none holds, the mistake is no matter of precision: the result is that of the preset named like the dtype.
    """
    inferred = named = None
    refuting: Finding | None = None
    for contract in (contract for contract in CONTRACTS.values() if contract.output.name == dtype):
        effort = request.effort
        if inferred is not None:
            effort = replace(effort, examples=max(1, round(LEAST_SHARE * effort.examples)), diagnose=False, thorough=False)
        elif refuting is not None and contract.name != dtype:  # what is no matter of precision fails under the others, too
            again = Examiner(implementation, dtype, sandbox, contract).examine(refuting.case).finding
            if again is not None:
                certificate.inferred.append(_tried(contract, "refuted", str(again.ratio), str(again.case)))
                continue
        result = Hunt(implementation, dtype, sandbox, effort, contract=contract, progress=watcher.progress).run()
        if result.findings:
            refuting = result.findings[0][0]
            certificate.inferred.append(_tried(contract, "refuted", str(refuting.ratio), str(refuting.case)))
        else:
            certificate.inferred.append(_tried(contract, "meets", result.worst_ratio, result.worst_case))
            inferred = inferred or result
        if contract.name == dtype:
            named = result
    found = inferred or named
    assert found is not None, "every dtype has a preset of its name"
    return found


def _tried(contract: PrecisionContract, verdict: str, worst_ratio: float | str, case: str) -> dict[str, Any]:
    return {"contract": contract.name, "verdict": verdict, "worst_ratio": worst_ratio, "case": case}
