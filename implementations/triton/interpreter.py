"""Whether kernels of this package are interpreted. Import this before Triton, which looks once, when it is imported."""

from __future__ import annotations

import os

import torch

__all__ = ["INTERPRETED"]

INTERPRETED = not torch.cuda.is_available()

if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"
