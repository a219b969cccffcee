"""Errors that are the user's to mend. The command line prints them as one sentence and exits with 2."""

from __future__ import annotations

__all__ = ["UsageError"]


class UsageError(ValueError):
    """Something that was asked for cannot be done; the message names it, what it is and what it should be."""
