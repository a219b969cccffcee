"""Settings of a project: the table ``[tool.attest]`` of the nearest ``pyproject.toml``, defaults for the command line and for pytest."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conformance.errors import UsageError

__all__ = ["SETTINGS", "project_settings"]

# Name in the table -> the types that its value may have, and these in words.
SETTINGS: dict[str, tuple[tuple[type, ...], str]] = {
    "max-examples": ((int,), "an integer"),
    "budget": ((int, float), "a number of seconds"),
    "seed": ((int,), "an integer"),
    "database": ((str,), "a folder, redis://HOST:PORT/NUMBER, or 'none'"),
    "dtypes": ((list,), "a list of dtypes"),
}

FILE = "pyproject.toml"


def project_settings(folder: Path | None = None) -> Mapping[str, Any]:
    """The settings that hold in a folder; none where no ``pyproject.toml`` of it or above has the table.

    Args:
        folder: where to look first; the working directory by default.

    Raises:
        UsageError: the file is no TOML, or the table has an unknown name or a value of the wrong type.
    """
    start = (folder or Path.cwd()).resolve()
    path = next((parent / FILE for parent in (start, *start.parents) if (parent / FILE).is_file()), None)
    if path is None:
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("attest", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    for name, value in table.items():
        if name not in SETTINGS:
            raise UsageError(f"tool.attest.{name} in {path} is unknown, but should be one of {', '.join(SETTINGS)}")
        types, words = SETTINGS[name]
        right = isinstance(value, types) and not isinstance(value, bool)
        if not right or (isinstance(value, list) and not all(isinstance(one, str) for one in value)):
            raise UsageError(f"tool.attest.{name}={value!r} in {path}, but should be {words}")
    return dict(table)
