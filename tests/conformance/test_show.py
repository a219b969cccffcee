"""Pictures of weights: that the weights are those of the method, and that they are drawn."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner

from conformance import methods
from conformance.cli import main
from conformance.showing.weights import asked_case, drawable, weights_of
from oracle import METHODS, attention


def weights(method, *words):
    return {one.title: one.weights for one in weights_of(*asked_case(method, words))}


def show(*words):
    return CliRunner().invoke(main, ["show", "pattern", *map(str, words)])


@pytest.mark.parametrize("method", drawable())
def test_the_weights_of_a_method_give_its_output(method):
    case, conventions = asked_case(method, ())
    arguments = case.arguments(conventions)
    outputs = METHODS[method](**arguments)
    want = outputs[0] if isinstance(outputs, tuple) else outputs
    whole = weights_of(case, conventions)[-1].weights
    values = next(arguments[name] for name in ("v", "v_pages", "c_kv") if name in arguments)
    values = values[0] @ arguments["w_uv"][0] if method == "latent_attention" else values
    got = whole @ values.reshape(whole.shape[1], -1)
    rounding = 0.2 if method in ("fp8_attention", "sage_attention") else 1e-9  # whose values or weights are rounded to a few bits
    assert np.linalg.norm(got - want.reshape(got.shape)) <= rounding * np.linalg.norm(want)


def test_a_mask_shows_as_weights_of_zero():
    banded = weights("attention", "window=(2,1)", "l=9")[""]
    i, j = np.indices((9, 9))
    assert ((banded != 0) == ((j >= i - 2) & (j <= i + 1))).all()
    assert np.allclose(banded.sum(axis=1), 1)


def test_a_convention_is_followed():
    names = ("bottom-right", "top-left")
    bottom, top = (weights("attention", "causal=True", "l=4", "s=6", f"causal_alignment={name}")[""] for name in names)
    assert (np.count_nonzero(bottom[0]), np.count_nonzero(top[0])) == (3, 1)


def test_a_recurrence_has_weights_that_decay():
    found = weights("retention", "l=8", "q=ones(0)", "k=ones(0)")[""]
    case, _ = asked_case("retention", ("l=8",))
    decay = float(case.arguments()["decay"][0])
    i, j = np.indices(found.shape)
    assert np.allclose(found / found[0, 0], np.where(j <= i, decay ** np.maximum(i - j, 0), 0))


def test_every_head_has_a_picture_of_its_own_keys():
    maps = weights("attention", "h=4", "g=2", "l=5", "causal=True")
    assert list(maps) == [f"head {head}" for head in range(4)]
    case, _ = asked_case("attention", ("h=4", "g=2", "l=5", "causal=True"))
    arguments = {**case.arguments(), "v": np.broadcast_to(np.eye(5), (1, 2, 5, 5))}
    assert np.allclose(np.stack(list(maps.values())), attention(**arguments)[0])


def test_both_maps_of_differential_attention_and_their_difference():
    maps = weights("differential_attention", "lam=0.5", "l=6")
    assert list(maps) == ["first map", "second map", ""]
    assert np.allclose(maps[""], maps["first map"] - 0.5 * maps["second map"])
    for name, (q, k) in {"first map": ("q1", "k1"), "second map": ("q2", "k2")}.items():
        arguments = asked_case("differential_attention", ("lam=0.5", "l=6"))[0].arguments()
        assert np.allclose(maps[name], attention(arguments[q], arguments[k], np.eye(6)[None, None])[0, 0])


def test_the_branches_of_native_sparse_attention_add_up_by_their_gates():
    case, conventions = asked_case("native_sparse_attention", ())
    *branches, whole = (one.weights for one in weights_of(case, conventions))
    gates = case.arguments()["gates"][0, 0]
    assert np.allclose(whole, sum(gates[:, [number]] * own for number, own in enumerate(branches)))


@pytest.mark.parametrize(
    ("method", "words", "said"),
    [
        ("moe_topk_gating", (), "has no values that it weighs, but should be one of attention_with_lse, attention"),
        ("rotary_embedding", (), "has no values that it weighs"),
        ("grouped_query_attention_shared_experts", (), "has no values that it weighs"),
        ("attention", ("wrong=1",), "option='wrong=1', but should be NAME=VALUE with a name of b, h, l"),
        ("attention", ("e=4",), "option='e=4', but should be NAME=VALUE"),
        ("attention", ("causal",), "option='causal', but should be NAME=VALUE"),
        ("attention", ("causal=3",), "causal=3, but should be True or False"),
        ("attention", ("causal_alignment=up",), "causal_alignment='up', but should be one of bottom-right"),
        ("attention", ("l=0",), "l=0, but should be at least 1 where something is to be drawn"),
        ("attention", ("s=4000", "l=1"), "a picture of 4000 keys, but should be of at most 1024"),
        ("attention", ("l=4000", "s=1"), "a picture of 4000 queries, but should be of at most 1024"),
        ("attention", ("h=3", "g=2"), "query heads must be a multiple"),
        ("strided_attention", ("stride=0",), "stride=0, but should be an integer >= 1"),
        ("latent_attention", ("c=4",), "c=4, but should be at least s=48"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_sentence(method, words, said, tmp_path):
    done = show(method, *words, "--out", tmp_path / "never.png")
    assert (done.exit_code, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.output
    assert not list(tmp_path.iterdir())


def test_a_method_of_a_users_own_whose_output_is_no_weighted_sum_is_not_drawn(tmp_path):
    (tmp_path / "own.py").write_text(
        "import numpy as np\nfrom oracle.catalogue import method\n\n\n"
        '@method(source="none", shapes="q: b h l d, k: b h s d, v: b h s e -> b h l e")\n'
        'def squared_values_for_a_picture(q, k, v):\n    """Of squares."""\n    return q @ np.swapaxes(k, -1, -2) @ (v * v)\n'
    )
    try:
        done = show(tmp_path / "own.py:squared_values_for_a_picture", "--out", tmp_path / "never.png")
    finally:
        METHODS.pop("squared_values_for_a_picture", None)
        methods._REFERENCES.pop("squared_values_for_a_picture", None)
    assert (done.exit_code, "is no weighted sum of its values" in done.stderr) == (2, True), done.output


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_picture_is_written(suffix, start, tmp_path):
    out = tmp_path / f"maps.{suffix}"
    done = show("differential_attention", "l=5", "causal=True", "--out", out)
    assert done.exit_code == 0, done.output
    assert out.read_bytes().startswith(start)
    assert done.stdout.splitlines() == [
        "first map: 5 x 5 (query x key), 60.0% not zero",
        "second map: 5 x 5 (query x key), 60.0% not zero",
        "weights: 5 x 5 (query x key), 60.0% not zero",
        f"written to {out}",
    ]


def test_a_file_that_cannot_be_written_and_a_missing_matplotlib_are_told(tmp_path, monkeypatch):
    done = show("attention", "l=3", "--out", tmp_path / "no" / "maps.png")
    assert (done.exit_code, "cannot be written" in done.stderr) == (2, True)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = show("attention", "l=3", "--out", tmp_path / "maps.png")
    assert (done.exit_code, "pip install 'attest-attention[plots]'" in done.stderr) == (2, True)
