"""Arguments of a call are the objects, by `id`, that those of the call before were, unless somebody still has these."""

import numpy as np
import pytest

from conformance.hunting.hunt import Hunt
from conformance.hunting.search import Effort
from conformance.isolation.arena import Arena, ArrayView
from conformance.isolation.backends import NumpyArrays, TorchArrays
from conformance.isolation.identities import Identities
from conformance.isolation.sandbox import Sandbox

BACKENDS = {"numpy": NumpyArrays, "torch": lambda: TorchArrays("cpu")}
NAMES = "qkvm"
VIEWS = [ArrayView(name, "float32", (2, 3), (12, 4), 64 * index, 64 * index, 24) for index, name in enumerate(NAMES)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_argument_is_the_object_that_the_one_of_its_name_was(backend):
    arrays, arena, identities = BACKENDS[backend](), Arena(), Identities()
    arena.contiguous("float32", (64,), 0)[:] = np.arange(64)

    def call():
        makers = lambda: {view.name: arrays.maker(arena, view) for view in VIEWS}  # noqa: E731
        made = identities.arguments(arrays.blank, makers)
        assert [float(made[name][0, 0]) for name in NAMES] == [0.0, 16.0, 32.0, 48.0]
        return {name: id(argument) for name, argument in made.items()}

    first = call()
    assert [call() for _ in range(20)] == [first] * 20
    assert len(set(first.values())) == len(NAMES)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_argument_that_somebody_keeps_stays_what_it_is(backend):
    arrays, arena, identities, kept = BACKENDS[backend](), Arena(), Identities(), []
    for _ in range(20):
        made = identities.arguments(arrays.blank, lambda: {view.name: arrays.maker(arena, view) for view in VIEWS})
        kept.append(made["k"])
        del made
    assert len(set(map(id, kept))) == 20


def test_a_process_of_its_own_gives_every_call_the_same_identities(tmp_path):
    """Within a case: an identity that comes again with other contents is what a memory by `id` goes wrong on."""
    log = tmp_path / "log"
    (tmp_path / "tells.py").write_text(
        f"""
import numpy as np

def kernel(q, k, v):
    with open({str(log)!r}, "a") as file:
        print(id(q), id(k), id(v), file=file)
    s = q @ np.swapaxes(np.repeat(k, q.shape[1] // k.shape[1], 1), -1, -2) * q.dtype.type(q.shape[-1] ** -0.5)
    p = np.exp(s - s.max(axis=-1, keepdims=True, initial=-1e30))
    return p / np.maximum(p.sum(axis=-1, keepdims=True), 1e-30) @ np.repeat(v, q.shape[1] // k.shape[1], 1)
"""
    )
    with Sandbox() as sandbox:
        [loaded] = sandbox.load(f"{tmp_path / 'tells.py'}:kernel", method="attention", backend="numpy")
        assert Hunt(loaded, "float32", sandbox, Effort(examples=20, diagnose=False)).run().verdict != "refuted"
    calls = log.read_text().splitlines()
    assert len(calls) > 60
    assert sum(one == other for one, other in zip(calls, calls[1:], strict=False)) > 0.8 * len(calls)
