"""Errors that are the user's to mend, and those of an implementation that attest itself finds while it drives it."""

from __future__ import annotations

__all__ = ["DriverError", "UsageError"]


class UsageError(ValueError):
    """Something that was asked for cannot be done; the message names it, what it is and what it should be.

    The command line prints it as one sentence and exits with 2.
    """


class DriverError(Exception):
    """What is wrong with what a driver of attest's own calls, in attest's words, where no exception of the implementation tells.

    Attributes:
        kind: of the finding that it becomes.
    """

    kind = "exception"
