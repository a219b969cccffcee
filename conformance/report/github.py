"""Verdicts as annotations of a GitHub workflow, shown beside the code that they are about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from conformance.certificate import Certificate, replay_line
from conformance.loading import parts

__all__ = ["workflow_commands"]

LEVELS = {"refuted": "error", "error": "error", "inconclusive": "warning"}


def workflow_commands(certificates: Iterable[Certificate]) -> Iterator[str]:
    """One workflow command for each certificate that is not certified."""
    for certificate in certificates:
        level = LEVELS.get(certificate.verdict)
        if level is not None:
            place = parts(certificate.target)[0] if ":" in certificate.target or certificate.target.endswith(".py") else ""
            file = f"file={_property(place)}," if place.endswith(".py") else ""
            title = " ".join(word for word in ("attest:", certificate.target, certificate.dtype, certificate.verdict) if word)
            yield f"::{level} {file}title={_property(title)}::{_data(_message(certificate))}"


def _message(certificate: Certificate) -> str:
    if certificate.result is None or certificate.implementation is None:
        return certificate.error
    if certificate.result.findings:
        finding, explained = certificate.result.findings[0]
        lines = [f"{finding.kind}: {finding.message}", *(f"explained by {text}" for text in explained)]
        return "\n".join([*lines, replay_line(certificate.implementation, finding)])
    return f"not ruled out: {', '.join(certificate.result.not_ruled_out) or 'nothing, but too few cases were run'}"


def _data(text: str) -> str:
    """As the runner's parser wants the message: it reads one line and decodes these."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
