"""Backends and devices: what each is asked for, what it says where it cannot run, and what follows for cases. No package but PyTorch."""

import random
import shutil
import sys

import pytest
from click.testing import CliRunner

from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.certify import Request, Watcher, certify
from conformance.cli import main
from conformance.errors import UsageError
from conformance.hunting.search import Effort
from conformance.isolation.backends import BACKENDS, arrays_of
from conformance.loading import _infer_backend
from conformance.probes import long_cases, probe_cases
from conformance.registry import describe, register


def flash(q, k, v, *, mask=None, causal=False, scale=None): ...


def described(backend):
    return describe(flash, method="attention", backend=backend, name="flash", target="here:flash")


@pytest.mark.parametrize(
    "target", ["implementations.torch.sdpa:sdpa", "implementations.numpy.dense:merge", "implementations.torch.sdpa_cuda:sdpa_cudnn"]
)
def test_a_device_that_is_not_here_is_a_usage_error(target, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = CliRunner().invoke(main, ["certify", target, "--device", "cuda", "--database", "none"])
    assert done.exit_code == 2
    assert "attest: device='cuda'" in done.stderr
    assert "Traceback" not in done.output


def test_a_kernel_of_the_gpu_is_refused_on_the_processor_with_the_option_to_give():
    done = CliRunner().invoke(main, ["certify", "implementations.torch.sdpa_cuda:sdpa_efficient", "--database", "none"])
    assert (done.exit_code, "runs on cuda, not on cpu: --device cuda" in done.stderr) == (2, True)


def test_what_does_not_run_on_the_device_is_left_out_of_everything_registered(monkeypatch):
    told = []
    found = [described("numpy"), described("torch")]
    monkeypatch.setattr("conformance.certify.implementations", lambda request: (found, []))
    watcher = Watcher(unloadable=lambda source, reason: told.append((source, reason)))
    request = Request(device="tpu", effort=Effort(1, 1.0))
    with pytest.raises(UsageError, match="no registered implementation"):
        certify(request, watcher)
    assert [source for source, _ in told] == ["flash", "flash"]
    assert told[0][1] == "runs on cpu, not on tpu: --device cpu"


def test_a_device_that_a_backend_lacks_cannot_be_declared():
    with pytest.raises(UsageError, match="device='cuda', but should be one of cpu for the backend numpy"):
        register("attention", backend="numpy", devices=("cuda",))(flash)


@pytest.mark.parametrize(("backend", "device"), [("torch", "cpu"), ("jax", "cuda:1"), ("numpy", "cpu")])
def test_an_implementation_runs_on_every_device_of_its_backend_unless_it_says_so(backend, device):
    assert described(backend).runs_on(device)


def test_a_package_that_is_missing_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(UsageError, match=r"backend='jax' needs JAX, .* pip install 'attest-attention\[jax\]'"):
        arrays_of("jax", "cpu")


def test_a_backend_that_nobody_has_is_named():
    with pytest.raises(UsageError, match="backend='cupy', but should be one of numpy, torch, jax"):
        arrays_of("cupy", "cpu")


def test_arrays_without_strides_are_drawn_in_one_layout_and_the_certificate_says_so():
    rng, jax = random.Random(0), described("jax")
    drawn = [random_case(rng, jax, "float32", STAGES[0]) for _ in range(100)]
    drawn += [*probe_cases(jax, "float32"), *long_cases(jax, "float32")]
    assert {recipe.layout for case in drawn for recipe in case.arrays.values()} == {"contiguous"}
    assert any("memory layouts are not varied" in note for note in jax.notes)
    layouts = {recipe.layout for case in probe_cases(described("torch"), "float32") for recipe in case.arrays.values()}
    assert len(layouts) > 2
    assert described("torch").notes == []


@pytest.mark.parametrize(("package", "backend"), [("jax.numpy", "jax"), ("jaxlib", "jax"), ("torch.nn", "torch"), ("numpy", "numpy")])
def test_the_backend_of_a_function_is_that_of_what_its_module_imports(package, backend):
    module = type(sys)("kernels")
    module.library = type(sys)(package)
    namespace = {"__name__": "kernels"}
    exec("def kernel(q, k, v): ...", namespace)
    assert _infer_backend(namespace["kernel"], module) == backend


def test_every_backend_is_declared_whole():
    for name, backend in BACKENDS.items():
        assert backend.name == name
        assert backend.title and backend.array and backend.packages and "cpu" in backend.devices
        assert backend.baseline.startswith(f"{name}.")


@pytest.mark.parametrize(("missing", "words"), [("c++", "no C\\+\\+ compiler"), ("ninja", "no ninja")])
def test_a_kernel_in_cpp_is_left_out_with_the_tool_that_is_missing(missing, words, monkeypatch):
    from implementations.torch import extensions

    monkeypatch.setattr(extensions.BUILDER, "get_cxx_compiler", lambda: "c++")
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == missing else f"/usr/bin/{tool}")
    with pytest.raises(ImportError, match=words):
        extensions.require()


def test_a_kernel_in_cuda_is_left_out_without_the_toolkit(monkeypatch):
    from implementations.torch import extensions

    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(extensions.BUILDER, "CUDA_HOME", None)
    with pytest.raises(ImportError, match="no CUDA toolkit"):
        extensions.require(cuda=True)
