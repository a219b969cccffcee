"""Signatures, options and conditions: what fits is bound, what does not is named, with what it is and what it should be."""

import re

import numpy as np
import pytest

from oracle import METHODS, OptionError, ShapeError, attention, attention_with_lse, get_method, merge_attention_states, method
from oracle.conditions import ConditionError, check_condition, condition_names, holds
from oracle.signature import ArraySpec, parse_signature


def says(error, message):
    """Raises ``error`` with exactly that message; "..." stands for anything."""
    return pytest.raises(error, match="^" + re.escape(message).replace(re.escape("..."), ".*") + "$")


def arguments(h=4, g=2, **changes):
    """Arguments of attention that fit: b=1 l=3 s=5 d=6 e=7."""
    fitting = {"q": np.zeros((1, h, 3, 6)), "k": np.zeros((1, g, 5, 6)), "v": np.zeros((1, g, 5, 7))}
    return fitting | changes


def test_a_line_becomes_named_arrays_with_their_kinds():
    line = "q: b h l d, mask?: bool ~(b h l), sinks?: h, lens: statistic b -> out: b l, lse: statistic b h"
    signature = parse_signature(line)
    assert signature.inputs == (
        ArraySpec("q", ("b", "h", "l", "d")),
        ArraySpec("mask", ("b", "h", "l"), "bool", optional=True, broadcast=True),
        ArraySpec("sinks", ("h",), optional=True),
        ArraySpec("lens", ("b",), "statistic"),
    )
    assert signature.outputs == (ArraySpec("out", ("b", "l")), ArraySpec("lse", ("b", "h"), "statistic"))
    assert [spec.name for spec in signature.required] == ["q", "lens"]
    assert [spec.name for spec in signature.optional] == ["mask", "sinks"]
    assert signature.dims == ("b", "h", "l", "d")
    assert str(signature) == line


def test_an_output_without_a_name_is_called_out():
    assert [spec.name for spec in parse_signature("x: b h -> b h").outputs] == ["out"]
    assert [spec.name for spec in parse_signature("x: b h -> b h, statistic b").outputs] == ["out", "out1"]


def test_spaces_do_not_matter():
    assert parse_signature(" x :  b  h ,m?: bool  ~( b h )->b") == parse_signature("x: b h, m?: bool ~(b h) -> b")


def test_the_signature_of_every_method_prints_as_a_line_that_parses_to_it():
    assert METHODS
    for declared in METHODS.values():
        assert parse_signature(str(declared.signature), declared.derived) == declared.signature


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q: b", "signature 'q: b', but should have exactly one '->'"),
        ("q: b -> b -> b", "signature 'q: b -> b -> b', but should have exactly one '->'"),
        ("q: (b -> b", "signature part 'q: (b', but should look like 'name?: kind dims' or 'name: ~(dims)'"),
        ("q: ~(b -> b", "signature part 'q: ~(b', but should look like 'name?: kind dims' or 'name: ~(dims)'"),
        ("q: b, k? b -> b", "signature part 'k? b', but should look like 'name?: kind dims' or 'name: ~(dims)'"),
        ("q: b h -> b z", "output out has dimension 'z', but should only use those of the inputs (b h)"),
        ("q: b h -> b, lse: statistic y", "output lse has dimension 'y', but should only use those of the inputs (b h)"),
    ],
)
def test_what_is_not_a_signature_is_shown(line, message):
    with says(ValueError, message):
        parse_signature(line)


def test_binding_gives_the_size_of_every_dimension():
    assert attention.check(arguments()) == {"b": 1, "h": 4, "l": 3, "d": 6, "g": 2, "s": 5, "e": 7}
    outs, lses = np.zeros((3, 1, 2, 4, 5)), np.zeros((3, 1, 2, 4))
    assert merge_attention_states.check({"outs": outs, "lses": lses}) == {"n": 3, "b": 1, "h": 2, "l": 4, "e": 5}


@pytest.mark.parametrize("empty", ["b", "l", "s", "e"])
def test_an_empty_dimension_fits(empty):
    sizes = {"b": 1, "h": 2, "l": 3, "d": 4, "g": 1, "s": 5, "e": 6} | {empty: 0}
    arrays = {name: np.zeros([sizes[dim] for dim in dims]) for name, dims in {"q": "bhld", "k": "bgsd", "v": "bgse"}.items()}
    assert attention.check(arrays) == sizes


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 1), (4, 1, 5), (1, 4, 3, 5), (1, 1, 1, 1)])
def test_a_mask_or_bias_may_have_fewer_axes_or_axes_of_one(shape):
    attention.check(arguments(mask=np.ones(shape, bool), bias=np.zeros(shape)))


def test_a_broadcast_array_is_held_against_arrays_that_come_after_it():
    signature = parse_signature("m: ~(b s), k: b s -> b")
    assert signature.bind({"m": (5,), "k": (2, 5)}, "f") == {"b": 2, "s": 5}
    with says(ShapeError, "m.shape=4, but should broadcast to (b s) = 2x5 [f(m: 4, k: 2x5)]"):
        signature.bind({"m": (4,), "k": (2, 5)}, "f")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": np.zeros((4, 3, 6))}, "q.ndim=3, but should be 4 (b h l d) [attention(q: 4x3x6, k: 1x2x5x6, v: 1x2x5x7)]"),
        ({"v": 1.0}, "v.ndim=0, but should be 4 (b g s e) [attention(q: 1x4x3x6, k: 1x2x5x6, v: scalar)]"),
        ({"sinks": np.zeros((1, 4))}, "sinks.ndim=2, but should be 1 (h) [...]"),
        ({"k": np.zeros((1, 2, 5, 8))}, "k.shape[3]=8, but should be d=6 as in q [...]"),
        ({"k": np.zeros((2, 2, 5, 6))}, "k.shape[0]=2, but should be b=1 as in q [...]"),
        ({"v": np.zeros((3, 2, 5, 7))}, "v.shape[0]=3, but should be b=1 as in q [...]"),
        ({"v": np.zeros((1, 4, 5, 7))}, "v.shape[1]=4, but should be g=2 as in k [...]"),
        ({"v": np.zeros((1, 2, 6, 7))}, "v.shape[2]=6, but should be s=5 as in k [...]"),
        ({"sinks": np.zeros(2)}, "sinks.shape[0]=2, but should be h=4 as in q [...]"),
        ({"mask": np.ones((3, 4), bool)}, "mask.shape=3x4, but should broadcast to (b h l s) = 1x4x3x5 [...]"),
        ({"mask": np.ones((2, 1, 1, 1), bool)}, "mask.shape=2x1x1x1, but should broadcast to (b h l s) = 1x4x3x5 [...]"),
        ({"bias": np.ones((1, 1, 4, 3, 5))}, "bias.shape=1x1x4x3x5, but should broadcast to (b h l s) = 1x4x3x5 [...]"),
        ({"bias": np.ones((2, 3, 5))}, "bias.shape=2x3x5, but should broadcast to (b h l s) = 1x4x3x5 [...]"),
        ({"v": None}, "v is missing, but should be an array (b g s e) [attention(q: 1x4x3x6, k: 1x2x5x6)]"),
    ],
)
def test_a_shape_that_does_not_fit_is_named_with_what_it_should_be(changes, message):
    with says(ShapeError, message):
        attention(**arguments(**changes))


def test_a_missing_argument_is_named_whatever_way_it_is_missing():
    with says(ShapeError, "q is missing, but should be an array (b h l d) [attention()]"):
        attention()
    with says(ShapeError, "k is missing, but should be an array (b g s d) [attention_with_lse(q: 1x4x3x6)]"):
        attention_with_lse(arguments()["q"])
    with says(ShapeError, "lses is missing, but should be an array (n b h l) [merge_attention_states(outs: 1x1x1x1x1)]"):
        merge_attention_states(np.zeros((1, 1, 1, 1, 1)))


def test_too_many_positional_arguments_are_counted():
    with says(OptionError, "attention got 4 positional arguments, but should get 3: q, k, v"):
        attention(*arguments().values(), np.ones((3, 5), bool))


GROUPED = "but should satisfy h % g == 0: query heads must be a multiple of key/value heads [attention]"


@pytest.mark.parametrize(("h", "g"), [(3, 2), (2, 4), (1, 2), (4, 0), (0, 0)])
def test_query_heads_must_be_a_multiple_of_key_heads(h, g):
    with says(ShapeError, f"b=1, h={h}, l=3, d=6, g={g}, s=5, e=7, {GROUPED}"):
        attention(**arguments(h, g))


def test_an_unknown_argument_is_answered_with_the_known_ones():
    known = sorted({"q", "k", "v", *attention.keywords, *attention.conventions})
    assert len(known) == 15
    with says(OptionError, f"is_causal is not an argument of attention, but should be one of {', '.join(known)}"):
        attention(**arguments(is_causal=True))
    with says(OptionError, "causal is not an argument of merge_attention_states, but should be one of lse_base, lses, outs"):
        merge_attention_states(np.zeros((1, 1, 1, 1, 1)), np.zeros((1, 1, 1, 1)), causal=True)


def test_tunables_are_not_arguments_of_the_meaning():
    with says(OptionError, "block_k is not an argument of attention, ..."):
        attention(**arguments(block_k=16))


WINDOW = "a pair (left, right) of integers >= 0 or None"


@pytest.mark.parametrize(
    ("option", "value", "shown", "wanted"),
    [
        *(("causal", value, repr(value), "True or False") for value in (1, 0, "yes", 0.0)),
        *(
            ("window", value, repr(value), WINDOW)
            for value in (3, (1,), (1, 2, 3), (-1, 0), (0, -1), (0.5, 1), (True, 0), "12", {1, 2}, (None, "0"))
        ),
        *(("softcap", value, repr(value), "a number > 0") for value in (0, -1.0, float("inf"), float("nan"), True, "5", [5.0])),
        *(("scale", value, repr(value), "a finite number") for value in (float("inf"), -float("inf"), float("nan"), False, "1", (1.0,))),
    ],
)
def test_a_bad_option_is_shown_with_what_it_should_be(option, value, shown, wanted):
    with says(OptionError, f"{option}={shown}, but should be {wanted} [attention]"):
        attention(**arguments(**{option: value}))


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("causal", (True, False, np.True_, None)),
        ("window", ((0, 0), [1, 2], (None, 3), (3, None), (None, None), (np.int64(2), np.int32(1)), (99, 99), None)),
        ("softcap", (1, 0.5, np.float32(2), np.int64(3), None)),
        ("scale", (0, -1.5, 1e-30, np.float64(0.1), np.int8(1), None)),
        ("mask", (None,)),
        ("bias", (None,)),
        ("sinks", (None,)),
    ],
)
def test_every_good_value_of_an_option_is_taken(option, values):
    for value in values:
        attention.check(arguments(**{option: value}))


@pytest.mark.parametrize(
    ("convention", "allowed"),
    [
        ("causal_alignment", "bottom-right, top-left"),
        ("empty_row", "zeros, nan, mean"),
        ("head_map", "grouped, interleaved"),
        ("window_bounds", "inclusive, exclusive"),
        ("softcap_order", "before-bias, after-bias"),
        ("lse_base", "e, 2"),
    ],
)
def test_a_bad_convention_is_shown_with_those_that_there_are(convention, allowed):
    for value in ("bottom_right", None, 2):
        with says(OptionError, f"{convention}={value!r}, but should be one of {allowed} [attention_with_lse]"):
            attention_with_lse(**arguments(**{convention: value}))
    for value in allowed.split(", "):
        attention_with_lse.check(arguments(**{convention: value}))


def test_a_method_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(KeyError, match="method='atention', but should be one of .*attention.*merge_attention_states"):
        get_method("atention")
    assert all(get_method(name) is METHODS[name] and METHODS[name].name == name for name in METHODS)


def test_a_declaration_that_does_not_fit_its_function_is_refused():
    def attend(q):
        return q

    with says(ValueError, "method 'attend' declares 'causal', but its specification has no such parameter"):
        method(source="", shapes="q: b -> b", options={"causal": "flag"})(attend)
    with says(ValueError, "method 'attend' declares 'k', but its specification has no such parameter"):
        method(source="", shapes="q: b, k: b -> b")(attend)
    assert "attend" not in METHODS


def test_one_name_cannot_be_declared_by_two_modules():
    def attention(q):
        return q

    with says(ValueError, f"method 'attention' is declared twice, in oracle.dense and {__name__}"):
        method(source="", shapes="q: b -> b")(attention)


def test_keywords_are_those_of_the_specification_in_its_order():
    assert attention.keywords == ("mask", "bias", "causal", "window", "softcap", "scale", "sinks")
    assert attention.default("causal") is False and attention.default("window") is None
    assert attention.names == {*"bhldgse", *attention.keywords}
    assert merge_attention_states.keywords == ()


@pytest.mark.parametrize(
    ("condition", "values", "truth"),
    [
        ("h % g == 0", {"h": 6, "g": 3}, True),
        ("h % g == 0", {"h": 6, "g": 4}, False),
        ("s > 0 and l >= 2", {"s": 1, "l": 2}, True),
        ("not causal or l == s", {"causal": True, "l": 2, "s": 3}, False),
        ("not causal or l == s", {"l": 2, "s": 3}, True),  # a name without a value is None
        ("window is None", {}, True),
        ("window is not None", {"window": (1, 2)}, True),
        ("d in (32, 64)", {"d": 64}, True),
        ("d not in (32, 64)", {"d": 64}, False),
        ("0 < d <= 128 != s", {"d": 128, "s": 5}, True),
        ("-l + 2 * s - d // 2 < 0", {"l": 9, "s": 2, "d": 4}, True),
        ("dtype == 'float32'", {"dtype": "float32"}, True),
        ("mask and l", {"mask": True, "l": 3}, True),
    ],
)
def test_a_condition_is_evaluated_over_dimensions_and_options(condition, values, truth):
    assert holds(condition, values) is truth


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("h ==", "should be an expression such as 'h == g' (...)"),
        ("h = g", "should be an expression such as 'h == g' (...)"),
        ("", "should be an expression such as 'h == g' (...)"),
        ("import os", "should be an expression such as 'h == g' (...)"),
        *(
            (text, f"should use only names, numbers, comparisons, and/or/not (no {node})")
            for text, node in [
                ("open('x')", "Call"), ("h.real > 0", "Attribute"), ("window[0] > 1", "Subscript"), ("2 ** s", "Pow"), ("s / 2", "Div"),
                ("s << 9", "LShift"), ("lambda: 0", "Lambda"), ("[s]", "List"), ("(s := 1)", "NamedExpr"), ("f'{s}'", "JoinedStr"),
                ("s if l else d", "IfExp"), ("~s", "Invert"), ("[x for x in d]", "ListComp"),
            ]
        ),
    ],
)  # fmt: skip
def test_anything_but_a_comparison_of_names_and_numbers_is_refused(condition, why):
    for use in (condition_names, lambda text: holds(text, {"s": 1, "h": 1}), lambda text: check_condition(text, {"s", "h"})):
        with says(ConditionError, f"condition={condition!r}, but {why}"):
            use(condition)


def test_a_name_that_the_method_does_not_have_is_shown():
    assert condition_names("not causal or l == s + l") == {"causal", "l", "s"}
    check_condition("not causal or l == s", {"causal", "l", "s", "d"})
    with says(ConditionError, "condition='l == t' names 't', but should use only l, s"):
        check_condition("l == t", {"s", "l"})


def test_builtins_are_out_of_reach():
    assert holds("open is None and __import__ is None and __builtins__ is None", {})
