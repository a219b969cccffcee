"""Methods from outside: of a file or module that a user names, and of installed packages.

A method is trusted code: its specification runs beside the judge, unlike any implementation. The worker loads it as well,
to hold the signature of an implementation against it.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from conformance.errors import UsageError
from conformance.loading import file_or_module, parts
from oracle import METHODS

__all__ = ["METHOD_GROUP", "load_installed", "reference_of", "references", "resolve_method"]

METHOD_GROUP = "attest.methods"

_REFERENCES: dict[str, str] = {}


def resolve_method(reference: str) -> str:
    """The name of a method, loaded if need be.

    Args:
        reference: a name in the catalogue, ``path/file.py:name``, ``package.module:name``, or a file or module that declares
            one method.

    Raises:
        UsageError: there is none, or its file cannot be loaded.
    """
    if reference in METHODS:
        return reference
    if not (reference.endswith(".py") or ":" in reference):
        known = ", ".join(METHODS)
        raise UsageError(f"method={reference!r}, but should be one of {known}, or path/file.py:name of one that is declared there")
    place, name = parts(reference)
    module = file_or_module(place)
    declared = [method for method in METHODS.values() if method.spec.__module__ == module.__name__]
    found = [method for method in declared if name in ("", method.name)]
    if len(found) != 1:
        names = ", ".join(method.name for method in declared) or "none"
        raise UsageError(f"method={reference!r}, but should name one of the methods that {place} declares with oracle.method ({names})")
    _REFERENCES[found[0].name] = f"{place}:{found[0].name}"
    return found[0].name


def reference_of(name: str) -> str:
    """What to pass as ``--method`` for a method: where it is declared, unless it is installed."""
    return _REFERENCES.get(name, name)


def references() -> list[str]:
    """Every method that was loaded from a file or module by name."""
    return list(_REFERENCES.values())


@cache
def load_installed() -> None:
    """Load the methods that installed packages declare: their entry points of the group name modules.

    Raises:
        UsageError: one of them cannot be loaded.
    """
    for entry in sorted(entry_points(group=METHOD_GROUP), key=lambda entry: entry.name):
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            raise UsageError(f"the methods of {entry.value} cannot be loaded: {type(error).__name__}: {error}") from None
