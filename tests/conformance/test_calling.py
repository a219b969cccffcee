"""How a user's function is understood, and what it is called with."""

import functools
from pathlib import Path
from random import Random

import pytest

from conformance import UsageError, register
from conformance.cases.case import condition_names
from conformance.cases.lines import parse_case
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.certify import Request, certify
from conformance.examine import Examiner
from conformance.hunting.search import Effort
from conformance.isolation.arena import Arena
from conformance.isolation.calling import Caller
from conformance.isolation.sandbox import InProcess
from conformance.loading import load
from conformance.registry import Implementation
from oracle import METHODS

SIGNATURES = Path(__file__).with_name("signatures.py")
DIMENSIONS = "b=1 h=1 l=2 d=4 g=1 s=3 e=4 q=normal(0) k=normal(1) v=normal(2)"
EVERYTHING = Implementation("x", "attention", "numpy", "x:y", options=METHODS["attention"].keywords)


def loaded(name, method=None):
    return load(f"{SIGNATURES}:{name}", method=method)[0].implementation


def passed(implementation, options=""):
    """The options that a call of a case passes."""
    case = parse_case(f"{implementation.method} float32 {DIMENSIONS} {options}")
    request = Caller(implementation, Arena()).request(case, case.arguments(), None)
    return request["calls"][0]["options"]


def findings(name, method=None, count=60, **declared):
    """What refutes a kernel in so many small cases."""
    rng = Random(0)
    with InProcess() as sandbox:
        implementation = sandbox.load(f"{SIGNATURES}:{name}", method=method)[0].declaring(**declared)
        examiner = Examiner(implementation, "float32", sandbox)
        judgements = [examiner.examine(random_case(rng, implementation, "float32", STAGES[0])) for _ in range(count)]
    return [judgement.finding for judgement in judgements if judgement.finding is not None]


@pytest.mark.parametrize(
    "name",
    [
        "attend", "other_names", "causal_by_default", "causal_required", "causal_by_number", "scale_of_one", "window_by_default",
        "capped_by_default", "capped_unless_none", "cap_of_zero", "named_and_anything", "wrapped", "bound", "bound_causal",
        "anonymous", "layer", "instance", "bound_layer", "declared", "signatures.times_1",
    ],
)  # fmt: skip
def test_a_right_kernel_is_never_refuted_for_its_signature(name):
    assert findings(name) == []


@pytest.mark.parametrize("name", ["anything", "only_arrays"])
def test_variadic_arguments_are_understood_once_the_method_is_given(name):
    assert findings(name, method="attention", count=20) == []


def test_an_array_that_is_required_is_passed_as_none():
    assert findings("mask_required") == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("other_names", ("causal",)),
        ("wrapped", ("causal",)),
        ("bound", ("causal",)),
        ("layer", ("causal",)),
        ("bound_layer", ("causal",)),
        ("instance", ("causal",)),
        ("anonymous", ("causal",)),
        ("named_and_anything", ("scale",)),
        ("declared", ("causal", "scale")),
    ],
)
def test_options_are_those_that_the_signature_names_or_the_registration_declares(name, options):
    implementation = loaded(name)
    assert implementation.method == "attention"
    assert implementation.options == options


def test_what_a_partial_binds_is_left_as_bound():
    assert loaded("bound").tunables == {}
    assert passed(loaded("bound"), "causal=True") == {"causal": True}


def test_kwargs_hide_options_until_they_are_declared():
    implementation = loaded("anything", "attention")
    assert implementation.options == ()
    assert implementation.notes[0].startswith("takes **kwargs: judged without mask, bias, causal, window, softcap, scale, sinks")
    declared = implementation.declaring(options=["scale", "causal"])
    assert declared.options == ("causal", "scale")
    assert declared.notes[0].startswith("takes **kwargs: judged with causal, scale and without mask, bias, window, softcap, sinks")
    assert declared.declaring(options=METHODS["attention"].keywords).notes == []


def test_a_declared_option_is_judged():
    assert {finding.kind for finding in findings("anything", method="attention", options=["scale"])} == {"wrong-value"}


def test_an_option_that_a_function_cannot_take_cannot_be_declared():
    with pytest.raises(UsageError, match=r"option='mask', but should be a keyword of .*wrapped, which takes causal and no \*\*kwargs"):
        loaded("wrapped").declaring(options=["mask"])
    with pytest.raises(UsageError, match="option='maks', but should be one of mask, bias"):
        loaded("declared").declaring(options=["maks"])


@pytest.mark.parametrize(
    ("name", "options", "call"),
    [
        ("attend", "", {}),
        ("causal_by_number", "", {}),
        ("cap_of_zero", "", {}),
        ("causal_by_default", "", {"causal": False}),
        ("causal_by_default", "causal=True", {"causal": True}),
        ("causal_required", "", {"causal": False}),
        ("bound_causal", "", {"causal": False}),
        ("scale_of_one", "", {"scale": 0.5}),
        ("scale_of_one", "scale=2.0", {"scale": 2.0}),
        ("window_by_default", "", {"window": (None, None)}),
        ("capped_unless_none", "", {"softcap": None}),
        ("mask_required", "", {"mask": None, "scale": 0.5}),
        ("mask_required", "mask=random(0)", {"scale": 0.5}),
    ],
)
def test_a_call_says_what_the_method_means_where_the_function_would_not_know(name, options, call):
    assert passed(loaded(name), options) == call


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("causal_by_default", "causal=False is passed where a case does not set it: the function's own default is True"),
        ("causal_required", "causal=False is passed where a case does not set it: the function requires it"),
        ("scale_of_one", "scale=1/sqrt(d) is passed where a case does not set it: the function's own default is 1.0"),
        ("window_by_default", "window=(None, None) is passed where a case does not set it: the function's own default is (128, 0)"),
    ],
)
def test_what_is_passed_explicitly_is_noted(name, note):
    assert loaded(name).notes == [note]
    assert Implementation.from_json(loaded(name).to_json()).notes == [note]


def test_an_option_that_cannot_be_switched_off_is_judged_only_where_it_is_set():
    implementation = loaded("capped_by_default")
    assert implementation.restrictions == {"softcap is not None": "left out, it is 50.0 by the function's own default"}
    rng = Random(0)
    assert all("softcap" in random_case(rng, implementation, "float32", STAGES[0]).options for _ in range(20))


def test_a_kernel_that_always_caps_can_still_be_certified():
    certificate = certify(Request(targets=(f"{SIGNATURES}:capped_by_default",), effort=Effort(examples=150)))[0]
    assert certificate.verdict == "certified", certificate.result.not_ruled_out


def test_a_kernel_made_in_a_loop_is_found_by_its_registered_name():
    implementations = [r.implementation for r in load(str(SIGNATURES))]
    targets = {implementation.name: implementation.target for implementation in implementations}
    assert targets == {
        "signatures.declared": f"{SIGNATURES}:declared",
        "signatures.times_1": f"{SIGNATURES}:signatures.times_1",
        "signatures.times_2": f"{SIGNATURES}:signatures.times_2",
    }
    assert loaded("signatures.times_2").name == "signatures.times_2"
    assert findings("signatures.times_2", count=5)


def test_only_a_function_with_a_name_can_be_registered():
    with pytest.raises(UsageError, match="register got partial, but should get a function"):
        register("attention", backend="numpy")(functools.partial(print))


def test_a_tunable_has_to_be_a_parameter():
    with pytest.raises(UsageError, match="tunable='blok', but should be a parameter of"):
        register("attention", backend="numpy", tunables={"blok": (1, 2)})(lambda q, k, v, *, block=1: v)


@pytest.mark.parametrize(
    ("lines", "backend"),
    [
        (["import torch"], "torch"),
        (["from torch import Tensor"], "torch"),
        (["from torch.nn import functional as F"], "torch"),
        (["import numpy as np"], "numpy"),
    ],
)
def test_the_backend_is_that_of_what_the_file_imports(lines, backend, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / f"uses_{backend}.py").write_text("\n".join([*lines, "def attention(q, k, v): ...", ""]))
    assert load(f"{tmp_path}/uses_{backend}.py:attention")[0].implementation.backend == backend


def test_a_torch_module_is_read_by_its_forward_and_called_as_itself(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "layers.py").write_text(
        "import torch\n"
        "class Layer(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.gain = torch.nn.Parameter(torch.ones(()))  # a graph is no fault of a layer\n"
        "    def forward(self, query, key, value, *, mask=None, scale=1.0):\n"
        "        group = query.shape[1] // key.shape[1]\n"
        "        key, value = (x.repeat_interleave(group, 1) for x in (key, value))\n"
        "        logits = query @ key.mT * (scale * self.gain)\n"
        "        logits = logits if mask is None else logits.masked_fill(~mask, -torch.inf)\n"
        "        return torch.nan_to_num(logits.softmax(-1)) @ value\n"
        "layer = Layer()\n"
    )
    rng = Random(0)
    with InProcess() as sandbox:
        [implementation] = sandbox.load(f"{tmp_path}/layers.py:layer")
        assert (implementation.method, implementation.backend, implementation.options) == ("attention", "torch", ("mask", "scale"))
        examiner = Examiner(implementation, "float32", sandbox)
        assert all(examiner.examine(random_case(rng, implementation, "float32", STAGES[0])).finding is None for _ in range(40))


# Conditions.


def test_the_facts_of_a_case_have_the_names_that_conditions_may_use():
    known = set(condition_names(METHODS["attention"])) | set("qkv")
    rng, seen = Random(0), set()
    for _ in range(300):
        seen |= random_case(rng, EVERYTHING, "float32", STAGES[0]).facts().keys()
    assert seen == known


@pytest.mark.parametrize(
    ("arrays", "facts"),
    [
        ("", {"contiguous": True}),
        ("mask=random(0)", {"contiguous": True, "mask": True, "mask_rank": 4}),
        ("mask=random(0)[l,s]", {"contiguous": True, "mask_rank": 2}),
        ("mask=random(0)[]", {"mask_rank": 0}),
        ("bias=normal(0)[1,h,1,s]", {"contiguous": True, "bias_rank": 4}),
        ("bias=normal(0)[s]@padded", {"contiguous": False, "bias_rank": 1}),
        ("sinks=normal(0)", {"sinks": True}),
    ],
)
def test_layouts_and_ranks_are_facts(arrays, facts):
    found = parse_case(f"attention float32 {DIMENSIONS} {arrays}").facts()
    assert facts.items() <= found.items()
    assert ("mask_rank" in found, "bias_rank" in found) == ("mask" in arrays, "bias" in arrays)


def test_a_restriction_to_contiguous_arrays_and_a_rank_is_kept_and_leaves_variety():
    restricted = EVERYTHING.declaring(restrictions={"contiguous": "declared", "mask_rank in (None, 4)": "declared", "h == g": "declared"})
    rng = Random(0)
    drawn = [random_case(rng, restricted, "float32", stage) for stage in STAGES for _ in range(60)]
    assert all(recipe.layout == "contiguous" for case in drawn for recipe in case.arrays.values())
    assert {len(case.axes("mask")) if "mask" in case.arrays else None for case in drawn} == {None, 4}
    assert {name for case in drawn for name in [*case.arrays, *case.options]} == {*"qkv", *EVERYTHING.options}


def test_a_name_that_a_method_has_no_array_for_is_refused():
    with pytest.raises(UsageError, match="names 'sinks_rank', but should use only"):
        EVERYTHING.declaring(restrictions={"sinks_rank == 1": "declared"})
