"""The rules by which attention kernels are usually judged, each as it is usually written.

A rule gets the outputs of a kernel, what they should be in float64, and what a plain implementation in the same dtype
returns. It raises where it rejects; whatever it does not reject passes, NaN included where its comparison lets NaN pass.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec

import torch

Tensor = torch.Tensor


@dataclass(frozen=True)
class Outputs:
    """One output of a call: as returned, exact (float64), and of the plain implementation in the dtype of the call."""

    got: Tensor
    exact: Tensor
    plain: Tensor
    dtype: str

    @property
    def wanted(self) -> Tensor:
        """The exact output, rounded to the dtype in which it should be returned."""
        return self.exact.to(self.plain.dtype)


def errors(outputs: Outputs, of: str) -> Tensor:
    """Absolute errors in float64; infinities that are expected must be met and are left out."""
    got = getattr(outputs, of).double()
    special = ~outputs.exact.isfinite()
    assert torch.equal(got[special], outputs.exact[special])
    return (got - outputs.exact)[~special].abs()


def finite(outputs: Outputs) -> Tensor:
    return outputs.exact[outputs.exact.isfinite()]


def torch_assert_close(outputs: Outputs) -> None:
    torch.testing.assert_close(outputs.got, outputs.wanted)


def allclose_loose(outputs: Outputs) -> None:
    assert torch.allclose(outputs.got, outputs.wanted, rtol=1e-2, atol=1e-2)


def twice_the_reference(outputs: Outputs) -> None:
    assert errors(outputs, "got").max() <= 2 * errors(outputs, "plain").max()


def both_must_exceed(outputs: Outputs) -> None:
    absolute = errors(outputs, "got")
    relative = absolute / finite(outputs).abs()
    assert not ((absolute > 1e-2) & (relative > 1e-2)).any()


def mean_error(outputs: Outputs) -> None:
    assert errors(outputs, "got").mean() <= 1.1 * errors(outputs, "plain").mean()


def relative_rmse(outputs: Outputs) -> None:
    assert errors(outputs, "got").square().mean().sqrt() < 0.005 * finite(outputs).square().mean().sqrt()


def cosine(outputs: Outputs) -> None:
    errors(outputs, "got")
    got, exact = outputs.got.double()[outputs.exact.isfinite()], finite(outputs)
    assert torch.nn.functional.cosine_similarity(got.flatten(), exact.flatten(), dim=0) > 0.99


def gpucheck_assert_close(outputs: Outputs) -> None:
    import gpucheck

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it prints a report
        gpucheck.assert_close(outputs.got, outputs.wanted)


def gpuemu_tolerance(outputs: Outputs) -> None:
    """The comparison that gpuemu documents, with the tolerance that it recommends; its own needs a daemon."""
    import gpuemu

    tolerance = gpuemu.get_recommended_tolerance(outputs.dtype, "pytorch", "attention")
    assert torch.allclose(outputs.got.double(), outputs.wanted.double(), rtol=tolerance.rtol, atol=tolerance.atol)


Rule = Callable[[Outputs], None]

RULES: dict[str, Rule] = {
    "assert_close": torch_assert_close,
    "allclose 1e-2": allclose_loose,
    "2x reference": twice_the_reference,
    "abs and rel": both_must_exceed,
    "mean 1.1x": mean_error,
    "RMSE": relative_rmse,
    "cosine": cosine,
    **({"gpucheck": gpucheck_assert_close} if find_spec("gpucheck") else {}),
    **({"gpuemu": gpuemu_tolerance} if find_spec("gpuemu") else {}),
}


def rejects(rule: Rule, outputs: list[Outputs]) -> bool:
    """Whether a test with this rule fails: one output is rejected, or comparing it raises."""
    try:
        for output in outputs:
            rule(output)
    except (AssertionError, RuntimeError, ValueError, TypeError, IndexError):
        return True
    return False
