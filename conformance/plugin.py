"""The pytest plugin: kernels are certified by tests of any project, which fail with the finding and the line that replays it.

``attest_certify`` certifies a kernel that a test names; a test that takes ``attest_target`` runs once for every registered
implementation in each of its dtypes. Nothing is imported until a test asks for either.
"""

from __future__ import annotations

import inspect
import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.certificate import Certificate

__all__ = ["Target", "attest_certify", "attest_target"]

# Option of pytest -> name of the setting, type, help.
OPTIONS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "--attest-max-examples": ("max-examples", int, "Cases for each kernel and dtype."),
    "--attest-budget": ("budget", float, "Seconds for each kernel and dtype."),
    "--attest-seed": ("seed", int, "The same seed gives the same hunt."),
}

Target = tuple[str, str]
"""A registered implementation and a dtype, by name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options, and the folder in which certificates are kept."""
    group = parser.getgroup("attest", "attention kernels")
    for option, (_, kind, words) in OPTIONS.items():
        group.addoption(option, type=kind, default=None, help=words)
    group.addoption("--attest-json", metavar="FOLDER", default=None, help="Write a certificate of every kernel there, as JSON.")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    words = "attest(method=None, backend=None): which registered implementations a test that takes attest_target runs for"
    config.addinivalue_line("markers", words)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for every registered implementation in each of its dtypes."""
    if "attest_target" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("attest")
    wanted = {} if marker is None else dict(marker.kwargs)
    targets = [
        (name, dtype)
        for name, method, backend, dtypes in _registered()
        if wanted.get("method") in (None, method) and wanted.get("backend") in (None, backend)
        for dtype in dtypes
    ]
    metafunc.parametrize("attest_target", targets, ids=[" ".join(target) for target in targets])


@cache
def _registered() -> tuple[tuple[str, str, str, tuple[str, ...]], ...]:
    """Name, method, backend and dtypes of every registered implementation that loads here and is not optional."""
    from conformance.certify import Request, implementations

    return tuple((found.name, found.method, found.backend, found.dtypes) for found in implementations(Request())[0] if not found.optional)


@pytest.fixture
def attest_target(request: pytest.FixtureRequest) -> Target:
    """A registered implementation and a dtype."""
    found: Target = request.param
    return found


@pytest.fixture
def attest_certify(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Certify a kernel; the test fails unless it is certified in every dtype.

    ``attest_certify("attention", kernel, backend="torch")``, or ``attest_certify(target=attest_target)``.

    Args of the function:
        method: that the kernel implements.
        kernel: a function at the top level of a module, or a target as on the command line.
        backend: whose arrays it takes.
        target: a registered implementation and a dtype instead.
        dtypes: instead of the declared ones.
        **declared: ``contract``, ``conventions``, ``options``, ``restrictions``, ``layout``, ``device`` as in `certify.Request`.
    """

    def certify(
        method: str | None = None, kernel: Callable[..., Any] | str | None = None, *, backend: str | None = None,
        target: Target | None = None, dtypes: Sequence[str] = (), **declared: Any,
    ) -> list[Certificate]:  # fmt: skip
        __tracebackhide__ = True
        from conformance.certify import Request
        from conformance.certify import certify as run
        from conformance.errors import UsageError
        from conformance.methods import load_installed, resolve_method

        if (target is None) == (kernel is None):
            pytest.fail("attest_certify should get a kernel or a target, one of the two", pytrace=False)
        try:
            load_installed()
            effort, database = _effort(request.config)
            name, given = target if target is not None else (_target_of(kernel), None)
            made = Request(
                targets=(name,), method=None if method is None else resolve_method(method), backend=backend,
                dtypes=tuple(dtypes) if given is None else (given,), effort=effort, database=database, **declared,
            )  # fmt: skip
            certificates = run(made)
        except (UsageError, TypeError) as error:
            pytest.fail(f"attest: {error}", pytrace=False)
        _keep(request, certificates)
        if any(certificate.verdict != "certified" for certificate in certificates):
            pytest.fail(_text(certificates), pytrace=False)
        return certificates

    return certify


def _effort(config: pytest.Config) -> tuple[Any, str | None]:
    """The effort of a hunt and the folder of remembered cases: of the options, else of the project, else of attest."""
    from conformance.hunting.search import Effort
    from conformance.settings import project_settings

    settings = dict(project_settings(config.rootpath))
    for option, (name, _, _) in OPTIONS.items():
        if (value := config.getoption(option)) is not None:
            settings[name] = value
    given = {"examples": settings.get("max-examples"), "seconds": settings.get("budget"), "seed": settings.get("seed")}
    database = settings.get("database")
    return Effort(**{name: value for name, value in given.items() if value is not None}), None if database == "none" else database


def _target_of(kernel: Callable[..., Any] | str | None) -> str:
    """The target that the worker loads: a test and its kernel never run in one process."""
    from conformance.errors import UsageError

    if isinstance(kernel, str):
        return kernel
    name, file = getattr(kernel, "__qualname__", ""), None
    if callable(kernel):
        with suppress(TypeError):  # a built-in function has no file
            file = inspect.getsourcefile(inspect.unwrap(kernel))
    if not name.isidentifier() or file is None:
        raise UsageError(
            f"kernel={kernel!r}, but should be a function at the top level of a module, or a target such as path/file.py:function"
        )
    return f"{file}:{name}"


def _keep(request: pytest.FixtureRequest, certificates: list[Certificate]) -> None:
    """Attach the certificates to the test's report, which JUnit XML shows, and write them where that is asked for."""
    from conformance.certificate import document

    made = document(certificates)
    request.node.user_properties.append(("attest", json.dumps(made["results"])))
    folder = request.config.getoption("--attest-json")
    if folder is not None:
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]+", "_", request.node.nodeid)
        (path / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def _text(certificates: list[Certificate]) -> str:
    """What the command line would say of those that are not certified."""
    from rich.console import Console

    from conformance.report.console import show_certificate

    out = Console(file=io.StringIO(), highlight=False, emoji=False, soft_wrap=True, no_color=True, width=200)
    for certificate in certificates:
        if certificate.error:
            out.print(f"attest: {certificate.error}", markup=False)
        elif certificate.verdict != "certified":
            show_certificate(out, certificate)
    file = out.file
    assert isinstance(file, io.StringIO), "it was made above"
    return file.getvalue()
