"""Building kernels in C++ and CUDA when they are first called, and saying why that cannot be done here."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from torch.utils import cpp_extension

__all__ = ["SOURCES", "extension", "require"]

BUILDER: Any = cpp_extension  # parts of it have no types
SOURCES = Path(__file__).parent / "csrc"


def require(*, cuda: bool = False) -> None:
    """Check that an extension can be built.

    Raises:
        ImportError: a tool is missing; attest leaves out what the importing module registers, and gives this reason.
    """
    compiler = BUILDER.get_cxx_compiler()
    if shutil.which(compiler) is None:
        raise ImportError(f"no C++ compiler: {compiler!r} is not on the path")
    if shutil.which("ninja") is None:
        raise ImportError("no ninja, which PyTorch builds extensions with: pip install ninja")
    if cuda and BUILDER.CUDA_HOME is None:
        raise ImportError("no CUDA toolkit: CUDA_HOME is not set and nvcc is not found")


@functools.cache
def extension(name: str, function: str, cpp: str = "", cuda: str = "") -> Any:
    """The module of a kernel, built once for its sources and kept where PyTorch keeps extensions.

    Args:
        name: of the module.
        function: that it offers.
        cpp, cuda: names of files in `SOURCES`; of a kernel in CUDA, `cpp` holds the declaration itself.
    """
    texts = [(SOURCES / file).read_text() for file in (cpp, cuda) if file]
    texts += [file.read_text() for file in sorted(SOURCES.glob("*.cuh")) if cuda]
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()[:12]
    before = dict(os.environ)
    try:
        return BUILDER.load_inline(
            name=f"{name}_{digest}",
            cpp_sources=[texts[0]] if cpp else [DECLARATION],
            cuda_sources=[(SOURCES / cuda).read_text()] if cuda else [],
            functions=[function],
            extra_cflags=["-O3"],
            extra_include_paths=[str(SOURCES)],
        )
    finally:  # a build sets variables for the compiler, which are nobody else's
        for key in os.environ.keys() - before.keys():
            del os.environ[key]
        os.environ.update(before)


DECLARATION = """
#include <optional>
torch::Tensor flash(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const std::optional<torch::Tensor>& mask,
                    const std::optional<torch::Tensor>& bias, const std::optional<torch::Tensor>& sinks, int64_t lowest, int64_t highest,
                    double softcap, double scale);
"""
