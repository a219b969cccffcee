"""The ledger of a campaign: a file of JSON lines, one for every finished hunt, from which a campaign that was cut off goes on.

The first line tells the settings and versions. A line is written at once, by one call to the system, and on the disk before the
campaign goes on; a kill can at most tear the last one, which then counts as not written: its hunt runs again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from conformance.campaign.jobs import request_to, source_of, versions
from conformance.certify import Request
from conformance.errors import UsageError

__all__ = ["Entry", "Ledger"]

MARK = "attest-campaign"
SCHEMA = 1

# How every ledger begins; a file that does not is none, and stays as it is.
BEGINNING = f'{{"{MARK}":'.encode()

# Not settings of a hunt, or no reason for another verdict.
NO_SETTINGS = ("targets", "database", "isolated")


@dataclass(frozen=True)
class Entry:
    """What is known of a target.

    Attributes:
        dtypes: in which it is to be hunted.
        records: of those in which it was, by dtype.
    """

    dtypes: tuple[str, ...]
    records: dict[str, dict[str, Any]] = field(default_factory=dict)


class Ledger:
    """What a campaign has done. Use as a context manager.

    Args:
        path: of the file; None to keep nothing.
        request: settings of the campaign.

    Attributes:
        entries: by target, of targets that name one implementation and whose file is what it was.
        expansions: by target, what the others stand for.

    Raises:
        UsageError: the file is no ledger, or one of other settings or versions, or another campaign is writing it.
    """

    def __init__(self, path: str | None, request: Request) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self.expansions: dict[str, list[str]] = {}
        self._sources: dict[str, tuple[str, str | None]] = {}
        self._descriptor = -1
        self._header = _header(request)
        if path is not None:
            try:
                self._open(path)
            except OSError as error:
                self.close()
                raise UsageError(f"ledger {path!r} cannot be written: {error.strerror}") from None
            except UsageError:
                self.close()
                raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def enter(self, target: str, dtype: str, dtypes: tuple[str, ...], record: dict[str, Any], source: str | None) -> None:
        """Keep the outcome of a hunt.

        Args:
            target: as it was asked for.
            dtype: of the hunt.
            dtypes: all those in which the target is hunted.
            record: the outcome.
            source: digest of the kernel's file.
        """
        self._write({"target": target, "dtype": dtype, "dtypes": list(dtypes), "source": source, "record": record})

    def expand(self, target: str, targets: list[str], source: str | None) -> None:
        """Keep what a target stands for."""
        self._write({"target": target, "expands": targets, "source": source})

    def _write(self, line: dict[str, Any]) -> None:
        if self._descriptor < 0:
            return
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        try:
            if os.write(self._descriptor, data) != len(data):
                raise OSError(0, "it took only a part of a line")
            os.fsync(self._descriptor)
        except OSError as error:
            raise UsageError(f"ledger {self.path!r} cannot be written: {error.strerror}") from None

    def _open(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"ledger {path!r} is being written by another campaign") from None
        data = b"".join(iter(lambda: os.read(self._descriptor, 1 << 20), b""))
        if not data.startswith(BEGINNING) and not BEGINNING.startswith(data):
            raise UsageError(f"{path!r} is no ledger of a campaign, but --ledger should name one, or a file that is not there yet")
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._descriptor, whole)
        if whole == 0:
            self._write(self._header)
            return
        first, *rest = data[:whole].splitlines()
        self._check(self._read(first, 1))
        for number, line in enumerate(rest, 2):
            try:
                self._take(self._read(line, number))
            except (KeyError, TypeError):
                raise self._damaged(number) from None
        self._forget_changed()

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            read = json.loads(line)
        except ValueError:
            read = None
        if not isinstance(read, dict):
            raise self._damaged(number)
        return read

    def _damaged(self, number: int) -> UsageError:
        return UsageError(f"line {number} of ledger {self.path!r} is damaged; name another file to begin anew")

    def _check(self, header: dict[str, Any]) -> None:
        ours, theirs = dict(_flat(self._header)), dict(_flat(header))
        for name in {**ours, **theirs}:
            if ours.get(name) != theirs.get(name):
                raise UsageError(
                    f"ledger {self.path!r} is of a campaign with {name}={theirs.get(name)!r}, but this one has {ours.get(name)!r}; "
                    "name another file to begin anew"
                )

    def _take(self, line: dict[str, Any]) -> None:
        target, source = line["target"], line["source"]
        if "expands" in line:
            self.expansions[target] = line["expands"]
            self._sources[target] = (target, source)
            return
        place = line["record"]["implementation"]["target"]
        known = self.entries.get(target)
        if known is None or self._sources[target] != (place, source) or known.dtypes != tuple(line["dtypes"]):
            known = self.entries[target] = Entry(tuple(line["dtypes"]))  # earlier lines are of what the file was before
        self._sources[target] = (place, source)
        known.records[line["dtype"]] = line["record"]

    def _forget_changed(self) -> None:
        """Leave out what a changed file says nothing about any more."""
        for target, (place, source) in self._sources.items():
            now = source_of(place)
            if source is not None and now is not None and now != source:
                self.entries.pop(target, None)
                self.expansions.pop(target, None)


def _header(request: Request) -> dict[str, Any]:
    settings = {name: value for name, value in request_to(request).items() if name not in NO_SETTINGS}
    header: dict[str, Any] = json.loads(json.dumps({MARK: SCHEMA, "settings": settings, "versions": versions()}))
    return header


def _flat(header: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings and versions by name, such as ``effort.seed``."""
    for name, value in header.items():
        if isinstance(value, dict) and value:
            within = "" if name in ("settings", "versions") else f"{name}."
            yield from ((f"{within}{inner}", one) for inner, one in _flat(value))
        else:
            yield name, value
