"""``attest campaign``: the command, with every option of ``attest certify`` but the one for debuggers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from conformance import cli

if TYPE_CHECKING:
    from conformance.campaign.processes import Crew

__all__ = ["campaign"]

# A hunt has two processes, the judge's and the kernel's, which work by turns for the most part.
WORKERS = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@click.command(cls=cli.Configured, params=[parameter for parameter in cli.certify.params if parameter.name != "no_isolation"])
@click.option("--workers", type=click.IntRange(min=1), default=WORKERS, show_default=True, metavar="N", help="Hunts at once.")
@click.option("--ledger", metavar="FILE", help="What is done is kept there, and not done again by the same command.")
@click.option("--dask", metavar="SCHEDULER", help="Hunt on the workers of this Dask cluster: tcp://host:8786.")
def campaign(
    targets: tuple[str, ...], dtypes: tuple[str, ...], max_examples: int, budget: float, seed: int, database: str,
    json_file: str | None, html_file: str | None, quiet: bool, github: bool, workers: int, ledger: str | None, dask: str | None,
    **declared: Any,
) -> None:  # fmt: skip
    """Certify many implementations at once, and go on where a campaign was cut off.

    Verdicts are those of 'attest certify' with the same settings.
    """
    from conformance.campaign.display import CampaignDisplay
    from conformance.campaign.distinct import distinct_findings
    from conformance.campaign.ledger import Ledger
    from conformance.campaign.run import Campaign

    request = cli.hunting_request(targets, dtypes, max_examples, budget, seed, database, no_isolation=False, **declared)
    cli.check_files(json=json_file, html=html_file)
    interrupted = False
    with Ledger(ledger, request) as kept, CampaignDisplay(silent=json_file == "-", quiet=quiet) as display:
        made = Campaign(request, _crew(workers, dask), kept, display.observer)
        try:
            made.run()
        except KeyboardInterrupt:
            interrupted = True
    certificates = made.certificates
    more = {"distinct_findings": [finding.to_json() for finding in distinct_findings(certificates)]}
    cli.conclude(certificates, display.problems, interrupted, json_file, html_file, github, more)


def _crew(workers: int, dask: str | None) -> Crew:
    if dask is None:
        from conformance.campaign.processes import Processes

        return Processes(workers)
    from conformance.campaign.cluster import Cluster

    return Cluster(dask)
