"""What a campaign shows: a bar for the whole and one for each hunt that is running, certificates as they come, and at the end which
findings are one.
"""

from __future__ import annotations

from types import TracebackType

from rich.progress import TaskID

from conformance.campaign.distinct import Distinct, distinct_findings
from conformance.campaign.run import Observer
from conformance.certificate import Certificate, replay_line
from conformance.report.console import Display, escape

__all__ = ["CampaignDisplay"]


class CampaignDisplay(Display):
    """Live counts of a campaign. Use as a context manager.

    Args:
        silent: print nothing on stdout.
        quiet: print no certificate that is as it should be.
    """

    def __init__(self, silent: bool = False, quiet: bool = False) -> None:
        super().__init__(silent, quiet)
        self._whole = self.progress.add_task("campaign", total=None, note="")
        self._running: dict[str, TaskID] = {}
        self._known = 0

    @property
    def observer(self) -> Observer:
        """The callbacks to pass to `conformance.campaign.run.Campaign`."""
        return Observer(self._unloadable, self._planned, self._begun, self._at, self._done)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, value, trace)
        for finding in distinct_findings(self.certificates):
            if len(finding.certificates) > 1:
                self._show(finding)

    def _show(self, finding: Distinct) -> None:
        """A finding that several certificates have."""
        kernels = ", ".join(f"{name} ({', '.join(dtypes)})" for name, dtypes in finding.kernels.items())
        self.out.print(f"[bold]{len(finding.certificates)} times {finding.kind}[/]  {escape(finding.mistake or 'not explained')}")
        self.out.print(f"  in         {escape(finding.source)}: {escape(kernels)}")
        smallest = finding.smallest
        assert smallest.implementation is not None and smallest.result is not None, "what has a finding has been hunted"
        self.out.print(f"  smallest   {escape(replay_line(smallest.implementation, smallest.result.findings[0][0]))}")

    def _planned(self, hunts: int) -> None:
        self.progress.update(self._whole, total=hunts)

    def _begun(self, target: str, name: str, dtype: str) -> None:
        self._ended(target)
        self._running[target] = self.progress.add_task(f"{escape(name)} {dtype}", total=None, note="")

    def _at(self, target: str, done: int, of: int, note: str) -> None:
        if target in self._running:
            self.progress.update(self._running[target], completed=done, total=of, note=escape(note))

    def _done(self, certificate: Certificate, known: bool) -> None:
        self._ended(certificate.target)
        self.certificates.append(certificate)
        self._known += known
        self.progress.update(self._whole, advance=1, note=f"{self._known} from the ledger" if self._known else "")
        if not known and not (self.quiet and certificate.verdict == "certified"):
            self.show(certificate)

    def _ended(self, target: str) -> None:
        if target in self._running:
            self.progress.remove_task(self._running.pop(target))
