"""A process of a campaign: takes jobs, a JSON line each, and tells what comes of them, a JSON line each.

It ends with the process that started it, and takes along whatever its kernels started.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback

from conformance.campaign.jobs import Job, Message, run_job
from conformance.isolation.processes import end_with_parent

__all__ = ["main"]


def main() -> None:
    """Entry point: the one argument is the process that started this one."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unlike its default, this runs what stops the kernel's process
    end_with_parent(signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        return  # it ended before it could be asked for a signal
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not mix with the answers

    def tell(message: Message) -> None:
        answers.write(json.dumps(message, allow_nan=False) + "\n")
        answers.flush()

    try:
        for line in sys.stdin:
            try:
                run_job(Job.from_json(json.loads(line)), tell)
            except BrokenPipeError:
                raise
            except Exception as error:  # a defect of the suite is one job's, not the campaign's
                traceback.print_exc()
                tell({"failed": f"{type(error).__name__}: {error}"})
            tell({"over": True})
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(1)  # nobody listens any more
