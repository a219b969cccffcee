"""The memory of failures: cases that refuted an implementation come first the next time, until they pass.

Kept by Hypothesis's own databases: in a directory, one folder for an implementation in one dtype, one file for a case; or on a
Redis server, one set for an implementation in one dtype, which several machines share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase, InMemoryExampleDatabase

from conformance.cases.case import Case
from conformance.cases.lines import CaseError, parse_case
from conformance.errors import UsageError
from conformance.registry import Implementation

__all__ = ["Memory"]

# How the address of a Redis server begins: plain, encrypted, or a socket of this machine.
REDIS = ("redis://", "rediss://", "unix://")

# Hypothesis lets what nobody asked for expire, after eight days unless told otherwise: a case is kept until it passes, but a kernel
# that nobody has hunted for a year is gone.
EXPIRE = timedelta(days=365)

# Beside the examples that Hypothesis itself keeps on the same server.
PREFIX = b"attest:"

# Seconds to wait for a server that does not answer.
PATIENCE = 10.0


class Memory:
    """Remembers the failing cases of implementations from run to run.

    Args:
        place: a folder, or the address of a Redis server; None to forget at the end of the run.

    Raises:
        UsageError: the folder is a file, or the server cannot be reached.
    """

    def __init__(self, place: str | None = None) -> None:
        self._place = "" if place is None else place
        if place is None:
            self._database: ExampleDatabase = InMemoryExampleDatabase()
        elif place.startswith(REDIS):
            self._database = self._on_server(place)
        else:
            if Path(place).exists() and not Path(place).is_dir():
                raise UsageError(f"database={place!r} is a file, but should be a folder, redis://HOST:PORT/NUMBER or 'none'")
            self._database = DirectoryBasedExampleDatabase(place)

    def recall(self, implementation: Implementation, dtype: str) -> list[Case]:
        """Cases that refuted it before and that it can still be called with, smallest first.

        Raises:
            UsageError: the server does not answer.
        """
        found = []
        with self._answering():
            lines = list(self._database.fetch(_key(implementation, dtype)))
        for line in lines:
            try:
                case = parse_case(line.decode())
            except (CaseError, UnicodeDecodeError):  # written by another version
                continue
            if case.method == implementation.method and case.dtype == dtype and _can_call(implementation, case):
                found.append(case)
        return sorted(found, key=lambda case: (case.size, str(case)))

    def remember(self, implementation: Implementation, dtype: str, refuting: Case | None, passed: Iterable[Case]) -> None:
        """Keep the case that refuted, and drop those that pass by now.

        Raises:
            UsageError: the server does not answer.
        """
        key = _key(implementation, dtype)
        with self._answering():
            for case in passed:
                self._database.delete(key, str(case).encode())
            if refuting is not None:
                self._database.save(key, str(refuting).encode())

    def _on_server(self, address: str) -> ExampleDatabase:
        try:
            from hypothesis.extra.redis import RedisExampleDatabase
            from redis import Redis
        except ImportError:
            raise UsageError(f"database={_public(address)!r} needs a package: pip install 'attest-attention[redis]'") from None
        try:
            server = Redis.from_url(address, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        except ValueError as error:
            raise UsageError(f"database={_public(address)!r}, but should be redis://HOST:PORT/NUMBER ({error})") from None
        with self._answering():
            server.ping()
        return RedisExampleDatabase(server, expire_after=EXPIRE, key_prefix=PREFIX)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn what a server, or the way to it, may fail with into one sentence."""
        if not self._place.startswith(REDIS):
            yield
            return
        from redis.exceptions import RedisError

        try:
            yield
        except (RedisError, OSError) as error:
            raise UsageError(f"database={_public(self._place)!r} does not answer: {error}") from None


def _public(address: str) -> str:
    """An address without its password."""
    password = urlsplit(address).password
    return address if not password else address.replace(f":{password}@", ":...@", 1)


def _can_call(implementation: Implementation, case: Case) -> bool:
    required = {spec.name for spec in case.specification.positional}
    taken = {*case.options, *case.arrays} - required <= set(implementation.options)
    fits = case.consistent and set(case.tunables) <= set(implementation.tunables)  # what a method asks for may have changed
    return taken and fits and implementation.admits(case.facts()) and implementation.tunes(case.tunables)


def _key(implementation: Implementation, dtype: str) -> bytes:
    return f"{implementation.target} {implementation.method} {dtype}".encode()
