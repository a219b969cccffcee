"""One job of a campaign: a target, hunted in its dtypes one after the other, told as plain data while it goes on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conformance.campaign.records import record_of
from conformance.certificate import Certificate, environment
from conformance.certify import Request, Watcher, certify_target
from conformance.errors import UsageError
from conformance.hunting.hunt import Hunt
from conformance.hunting.search import Effort
from conformance.isolation.sandbox import Limits
from conformance.loading import parts
from conformance.methods import load_installed, references, resolve_method
from conformance.registry import Implementation

__all__ = ["Job", "Message", "Tell", "remaining", "request_from", "request_to", "run_job", "source_of", "versions"]

Message = dict[str, Any]
Tell = Callable[[Message], None]

# Seconds between two words on how far a hunt is.
PACE = 0.25

# Where the suite itself lies: its verdicts depend on every line of these.
OWN = ("conformance", "oracle")


@dataclass(frozen=True)
class Job:
    """What one process is to do.

    Attributes:
        target: what to certify.
        request: how, without targets.
        methods: files or modules of methods from outside, by reference.
        versions: with what the campaign began; another machine may have others.
    """

    target: str
    request: Request
    methods: tuple[str, ...]
    versions: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data that crosses process boundaries."""
        return {
            "target": self.target, "request": request_to(self.request), "methods": list(self.methods), "versions": self.versions,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """Undo `to_json`."""
        return cls(data["target"], request_from(data["request"]), tuple(data["methods"]), data["versions"])


def request_to(request: Request) -> dict[str, Any]:
    """A request as plain data."""
    data = asdict(request)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in data.items()}


def request_from(data: dict[str, Any]) -> Request:
    """Undo `request_to`."""
    listed = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
    return Request(**{**data, **listed, "effort": Effort(**data["effort"]), "limits": Limits(**data["limits"])})


def run_job(job: Job, tell: Tell) -> None:
    """Hunt the target, and tell what it stands for, what begins, how far it is, and what comes out.

    A message has one key: ``expands`` (the targets that the target stands for), ``started`` (name, dtype and the dtypes to
    come), ``progress``, ``result`` (a record) or ``refused`` (why the job cannot be done here at all).
    """
    try:
        load_installed()
        for reference in job.methods:
            resolve_method(reference)
        _compare(job.versions, versions())
    except UsageError as error:
        tell({"refused": str(error)})
        return

    def several(targets: list[str]) -> Iterable[Certificate]:
        tell({"expands": targets, "source": source_of(job.target)})
        return ()

    for certificate in certify_target(job.request, job.target, _Telling(job, tell).watcher, several):
        made = certificate.implementation
        tell({"result": record_of(certificate), "source": None if made is None else source_of(made.target)})


class _Telling:
    """A watcher whose words go through a pipe."""

    def __init__(self, job: Job, tell: Tell) -> None:
        self._job, self._tell, self._last = job, tell, 0.0

    @property
    def watcher(self) -> Watcher:
        return Watcher(started=self._started, progress=self._hunting)

    def _started(self, implementation: Implementation, dtype: str) -> None:
        dtypes = list(dict.fromkeys(self._job.request.dtypes or implementation.dtypes))
        self._tell({"started": {"name": implementation.name, "dtype": dtype, "dtypes": dtypes}})

    def _hunting(self, hunt: Hunt) -> None:
        if time.monotonic() - self._last >= PACE:
            self._last = time.monotonic()
            note = f"{hunt.search.stage}, worst {hunt.worst.ratio:.2f}, {len(hunt.adequacy.left)} mistakes left"
            self._tell({"progress": {"done": hunt.examples, "of": max(hunt.effort.examples, hunt.examples), "note": note}})


def versions() -> dict[str, Any]:
    """What a verdict depends on besides the settings and the kernel: packages, and the suite's and the methods' own lines."""
    made = environment()
    methods = {reference: source_of(reference) for reference in references()}
    return {"python": made["python"], **made["packages"], "suite": _own_lines(), "methods": methods}


def _compare(wanted: dict[str, Any], got: dict[str, Any]) -> None:
    for name, version in wanted.items():
        if got.get(name) != version:
            raise UsageError(f"{name} is {got.get(name)!r} where a hunt should run, but {version!r} where the campaign began")


@cache
def _own_lines() -> str:
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for path in sorted(path for package in OWN for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def source_of(target: str) -> str | None:
    """A digest of the file that a target names, without importing it; None where it is not to be found from here."""
    place, _ = parts(target)
    path = Path(place) if Path(place).is_file() else _file_of(place)
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _file_of(module: str) -> Path | None:
    """Where a module lies. `find_spec` would import the packages on the way there."""
    first, *rest = module.split(".")
    try:
        found = PathFinder.find_spec(first, [str(Path.cwd())]) or find_spec(first)
    except (ImportError, ValueError, AttributeError):
        return None
    if found is None:
        return None
    file, folders = Path(found.origin or ""), [Path(folder) for folder in found.submodule_search_locations or ()]
    for part in rest:
        folders = [folder / part for folder in folders]
        files = [path for folder in folders for path in (folder / "__init__.py", folder.with_suffix(".py"))]
        file = next((path for path in files if path.is_file()), Path())
    return file if file.is_file() else None


def remaining(job: Job, dtypes: Iterable[str]) -> Job:
    """The job without the dtypes that are done."""
    return replace(job, request=replace(job.request, dtypes=tuple(dtypes)))
