"""The campaign: which jobs there are, what comes of them, and in which order it is told at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from conformance.campaign.jobs import Job, Message, remaining, versions
from conformance.campaign.ledger import Ledger
from conformance.campaign.processes import Crew
from conformance.campaign.records import certificate_of
from conformance.certificate import Certificate
from conformance.certify import Request, Watcher, check, registered_targets
from conformance.errors import UsageError
from conformance.methods import references

__all__ = ["Campaign", "Observer"]

# A job whose process dies is done again so often in all; then it is the job that kills it.
TRIES = 3


@dataclass(frozen=True)
class Observer:
    """What to tell as a campaign goes on.

    Attributes:
        unloadable: a source of implementations that cannot be loaded, and the reason.
        planned: how many hunts are known of, done ones included.
        started: a job's target, and the name and dtype that are hunted now.
        progress: a job's target, cases done and planned, and a note.
        finished: a certificate, and whether it was in the ledger already.
    """

    unloadable: Callable[[str, str], None] = lambda source, reason: None
    planned: Callable[[int], None] = lambda hunts: None
    started: Callable[[str, str, str], None] = lambda target, name, dtype: None
    progress: Callable[[str, int, int, str], None] = lambda target, done, of, note: None
    finished: Callable[[Certificate, bool], None] = lambda certificate, known: None


@dataclass
class _Target:
    """What is known of a target: the dtypes in which it is hunted, and what came of those that are done."""

    dtypes: tuple[str, ...] = ()
    done: dict[str, Certificate] = field(default_factory=dict)
    tries: int = 0

    @property
    def left(self) -> tuple[str, ...]:
        return tuple(dtype for dtype in self.dtypes if dtype not in self.done)


class Campaign:
    """Hunts every target in every of its dtypes, several at once.

    Args:
        request: as of `conformance.certify.certify`; its targets may stand for several.
        crew: who does the jobs; it is closed at the end.
        ledger: what was done before, and where what is done now is kept.
        observer: what to tell.
    """

    def __init__(self, request: Request, crew: Crew, ledger: Ledger, observer: Observer | None = None) -> None:
        self.request, self.crew, self.ledger, self.observer = request, crew, ledger, observer or Observer()
        self._order: list[str] = []
        self._targets: dict[str, _Target] = {}
        self._open = 0
        self._versions = versions()

    @property
    def certificates(self) -> list[Certificate]:
        """Those that there are so far, in the order of the targets and dtypes."""
        return list(self._in_order())

    def run(self) -> list[Certificate]:
        """Do what the ledger does not have.

        Raises:
            UsageError: nothing fits the request, or the jobs cannot be done at all.
        """
        try:
            check(self.request)
            targets = self.request.targets or registered_targets(self.request, Watcher(unloadable=self.observer.unloadable))
            self._order = self._plan(list(targets))
            self._count()
            while self._open:
                heard = self.crew.receive()
                if heard is not None:
                    self._hear(*heard)
        finally:
            self.crew.close()
        return self.certificates

    def _in_order(self) -> Iterator[Certificate]:
        for target in self._order:
            known = self._targets[target]
            yield from (known.done[dtype] for dtype in (*known.dtypes, "") if dtype in known.done)

    def _plan(self, targets: list[str]) -> list[str]:
        """Begin with the targets, each once, without what is done; those that they come to, as far as is known."""
        order = []
        for target in targets:
            if target in self._targets:
                continue
            if target in self.ledger.expansions:
                order += self._plan(self.ledger.expansions[target])
                continue
            order.append(target)
            known = self._targets[target] = _Target()
            if (entry := self.ledger.entries.get(target)) is not None:
                known.dtypes = entry.dtypes
                for dtype, record in entry.records.items():
                    known.done[dtype] = certificate_of(record)
                    self.observer.finished(known.done[dtype], True)
            if known.left or not known.dtypes:
                self._submit(target)
        return order

    def _submit(self, target: str) -> None:
        job = Job(target, replace(self.request, targets=()), tuple(references()), self._versions)
        known = self._targets[target]
        self._open += 1
        self.crew.submit(remaining(job, known.left) if known.dtypes else job)

    def _count(self) -> None:
        self.observer.planned(sum(max(len(self._targets[target].dtypes), 1) for target in self._order))

    def _hear(self, job: Job, message: Message) -> None:
        known = self._targets[job.target]
        if "refused" in message:
            raise UsageError(message["refused"])
        if "started" in message:
            self._started(job.target, known, message["started"])
        elif "progress" in message:
            made = message["progress"]
            self.observer.progress(job.target, made["done"], made["of"], made["note"])
        elif "expands" in message:
            self._expand(job.target, message)
        elif "result" in message:
            self._finished(job.target, known, message)
        elif "failed" in message:
            self._give_up(job.target, known, f"hunting {job.target} failed: {message['failed']}")
        else:
            self._over(job.target, known, message.get("died"))

    def _started(self, target: str, known: _Target, begun: dict[str, list[str] | str]) -> None:
        known.dtypes = known.dtypes or tuple(begun["dtypes"])
        self._count()
        self.observer.started(target, str(begun["name"]), str(begun["dtype"]))

    def _expand(self, target: str, message: Message) -> None:
        self.ledger.expand(target, message["expands"], message["source"])
        at = self._order.index(target)
        self._order[at : at + 1] = self._plan(message["expands"])
        self._count()

    def _finished(self, target: str, known: _Target, message: Message) -> None:
        certificate = certificate_of(message["result"])
        if certificate.dtype in known.done:  # of a process that died after it had told
            return
        known.done[certificate.dtype] = certificate
        if certificate.result is not None:  # what could not be hunted is tried again the next time
            self.ledger.enter(target, certificate.dtype, known.dtypes, message["result"], message["source"])
        self.observer.finished(certificate, False)

    def _over(self, target: str, known: _Target, death: str | None) -> None:
        self._open -= 1
        if death is not None:
            known.tries += 1
            if known.tries == TRIES:
                self._give_up(target, known, f"the process that hunted {target} {death}, {TRIES} times")
        if "" not in known.done and (known.left or death is not None):
            self._submit(target)

    def _give_up(self, target: str, known: _Target, reason: str) -> None:
        """Go on with the next dtype, or without the target if it did not come to the first."""
        known.tries = 0
        certificate = Certificate(target, dtype=next(iter(known.left), ""), device=self.request.device, error=reason)
        known.done[certificate.dtype] = certificate
        self.observer.finished(certificate, False)
