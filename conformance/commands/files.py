"""Files that commands write."""

from __future__ import annotations

__all__ = ["write"]


def write(kind: str, path: str, text: str) -> None:
    """Write a text and a line end.

    Raises:
        UsageError: the file cannot be written; it names it by its kind.
    """
    from conformance.errors import UsageError

    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise UsageError(f"{kind} file {path!r} cannot be written: {error.strerror}") from None
