"""Kernels in Triton compile for a GPU: the interpreter takes more than the compiler does, and CI has only the interpreter."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install 'attest-attention[triton]'")
def test_every_kernel_compiles_for_a_gpu(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "triton_for_a_gpu.py"), "float16"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["failed"] == {}
    assert sum(told["compiled"].values()) > len(told["compiled"]) > 0
