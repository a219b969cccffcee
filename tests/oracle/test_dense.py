"""Dense attention means what its documentation says: the value reading against loops over single elements.

The loops share nothing with the oracle: no broadcasting, no shift by the maximum, one row and one key at a time.
"""

import itertools
import math

import numpy as np
import pytest

from oracle import attention, attention_with_lse, merge_attention_states
from oracle.dense import allowed_keys, unread_by, visible_keys

CONVENTIONS = attention_with_lse.conventions


def at(array, *index):
    """Element of an array that may have fewer axes than the index, or axes of one."""
    own = index[len(index) - array.ndim :]
    return array[tuple(0 if size == 1 else i for size, i in zip(array.shape, own, strict=True))]


def may_attend(i, j, queries, keys, causal, window, causal_alignment, window_bounds):
    ahead = j - i - (keys - queries if causal_alignment == "bottom-right" else 0)
    left, right = window or (None, None)
    if causal and ahead > 0:
        return False
    if window_bounds == "exclusive":
        return (left is None or -left < ahead) and (right is None or ahead < right)
    return (left is None or -left <= ahead) and (right is None or ahead <= right)


def see(
    index, q, k, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None,
    causal_alignment="bottom-right", head_map="grouped", window_bounds="inclusive", softcap_order="before-bias",
):  # fmt: skip
    """The key/value head that one query of one head reads, the keys that it may read there, and their logits."""
    b, h, i = index
    (heads, queries, width), (kv_heads, keys) = q.shape[1:], k.shape[1:3]
    kv_head = h // (heads // kv_heads) if head_map == "grouped" else h % kv_heads
    seen, logits = [], []
    for j in range(keys):
        allowed = may_attend(i, j, queries, keys, causal, window, causal_alignment, window_bounds)
        if not allowed or (mask is not None and not at(mask, b, h, i, j)):
            continue
        dot = math.fsum(q[b, h, i, x] * k[b, kv_head, j, x] for x in range(width))
        logit = dot / math.sqrt(width) if scale is None else dot * scale
        added = 0.0 if bias is None else at(bias, b, h, i, j)
        before, after = (added, 0.0) if softcap_order == "after-bias" else (0.0, added)
        logit += before
        if softcap is not None:
            logit = softcap * math.tanh(logit / softcap)
        seen.append(j)
        logits.append(logit + after)
    return kv_head, seen, logits


def loops(q, k, v, *, sinks=None, empty_row="zeros", lse_base="e", **options):
    """Attention and logsumexp, an element at a time."""
    out, lse = np.full((*q.shape[:3], v.shape[3]), np.inf), np.full(q.shape[:3], np.inf)
    for b, h, i in np.ndindex(q.shape[:3]):
        kv_head, keys, logits = see((b, h, i), q, k, **options)
        weights = [math.exp(logit) for logit in logits]
        total = math.fsum([*weights, *([] if sinks is None else [math.exp(sinks[h])])])
        lse[b, h, i] = -np.inf if total == 0 else math.log(total) if lse_base == "e" else math.log2(total)
        for x in range(v.shape[3]):
            values = [v[b, kv_head, j, x] for j in range(v.shape[2])]
            if keys or sinks is not None:
                out[b, h, i, x] = math.fsum(weight * values[j] for weight, j in zip(weights, keys, strict=True)) / total
            else:
                out[b, h, i, x] = {"zeros": 0.0, "nan": math.nan, "mean": math.fsum(values) / max(len(values), 1)}[empty_row]
    return out, lse


def arrays(rng, *, b=2, g=2, group=2, l=3, s=5, d=3, e=2):  # noqa: E741
    return {"q": rng.normal(size=(b, g * group, l, d)), "k": rng.normal(size=(b, g, s, d)), "v": rng.normal(size=(b, g, s, e))}


def lower(rng, shape):
    """A shape that broadcasts to another: axes of one, and fewer of them."""
    return tuple(1 if rng.random() < 0.4 else size for size in shape)[rng.integers(0, 5) :]


def draw(rng):
    """Arguments with any of the options and conventions."""
    dims = {"b": rng.integers(0, 3), "g": rng.integers(1, 4), "group": rng.integers(1, 4), "l": rng.integers(0, 5), "s": rng.integers(0, 7)}
    case = arrays(rng, **dims, d=rng.integers(1, 5), e=rng.integers(0, 4))
    shape, side = (*case["q"].shape[:3], case["k"].shape[2]), [None, 0, 1, 2, 9]
    options = {
        "mask": rng.random(lower(rng, shape)) < 0.6, "bias": rng.normal(size=lower(rng, shape)) * 2, "causal": bool(rng.integers(2)),
        "window": (side[rng.integers(5)], side[rng.integers(5)]), "softcap": rng.choice([0.3, 2.0, 50.0]), "scale": rng.uniform(-2, 2),
        "sinks": rng.normal(size=shape[1]) * 2,
    }  # fmt: skip
    chosen = {name: value for name, value in options.items() if rng.random() < 0.4}
    return case | chosen | {name: str(rng.choice(values)) for name, values in CONVENTIONS.items() if rng.random() < 0.5}


def agree(got, want):
    """Arrays, or tuples of them, agree but for rounding."""
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13, strict=True)


@pytest.mark.parametrize("seed", range(8))
def test_attention_means_what_loops_over_its_elements_compute(seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        case = draw(rng)
        out, lse = attention_with_lse(**case)
        agree((out, lse), loops(**case))
        np.testing.assert_array_equal(attention(**{name: value for name, value in case.items() if name != "lse_base"}), out)


def telling():
    """Arguments to which every convention matters: the last query may read nothing."""
    rng, mask = np.random.default_rng(1), np.array([[True], [True], [True], [False]])
    return arrays(rng, l=4, s=3) | {"mask": mask, "bias": rng.normal(size=(4, 1, 3)), "window": (1, 1), "causal": True, "softcap": 1.0}


def test_every_combination_of_conventions_means_what_the_loops_compute():
    for values in itertools.product(*CONVENTIONS.values()):
        case = telling() | dict(zip(CONVENTIONS, values, strict=True))
        agree(attention_with_lse(**case), loops(**case))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_value_of_a_convention_is_another_meaning_and_the_first_is_the_default(convention):
    answers = [attention_with_lse(**telling(), **{convention: value}) for value in CONVENTIONS[convention]]
    for one, other in itertools.combinations(answers, 2):
        assert not all(map(np.array_equal, one, other))
    assert all(map(np.array_equal, attention_with_lse(**telling()), answers[0]))


@pytest.mark.parametrize(
    ("options", "rows"),  # a row a query, a column a key
    [
        ({}, ["1111", "1111"]), ({"window": (None, None)}, ["1111", "1111"]),
        ({"causal": True}, ["1110", "1111"]), ({"causal": True, "causal_alignment": "top-left"}, ["1000", "1100"]),
        ({"causal": True}, ["0", "0", "1"]), ({"causal": True, "causal_alignment": "top-left"}, ["1", "1", "1"]),
        ({"window": (1, 0)}, ["0110", "0011"]), ({"window": (0, 1)}, ["0011", "0001"]), ({"window": (0, 1)}, ["0", "1", "1"]),
        ({"window": (1, None)}, ["0111", "0011"]), ({"window": (None, 0)}, ["1110", "1111"]),
        ({"window": (2, 9), "causal": True}, ["1110", "0111"]),
        ({"window": (1, 1), "causal_alignment": "top-left"}, ["1100", "1110"]),
        ({"window": (2, None), "window_bounds": "exclusive"}, ["0111", "0011"]),
        ({"window": (None, 1), "window_bounds": "exclusive"}, ["1110", "1111"]),
        ({"window": (0, 0), "window_bounds": "exclusive"}, ["0000", "0000"]),
        ({"mask": np.array([True, False, True, True]), "causal": True}, ["1010", "1011"]),
        ({"mask": np.array([[False], [True]])}, ["0000", "1111"]),
    ],
)  # fmt: skip
def test_the_keys_that_a_query_may_read_are_these(options, rows):
    want = np.array([[cell == "1" for cell in row] for row in rows])
    queries, keys = want.shape
    np.testing.assert_array_equal(np.broadcast_to(allowed_keys(queries, keys, **options), want.shape), want)
    value = np.eye(keys)[None, None]  # the output is the row of weights
    weights = attention(np.zeros((1, 1, queries, 1)), np.zeros((1, 1, keys, 1)), value, **options)[0, 0]
    agree(weights, want / np.maximum(want.sum(-1, keepdims=True), 1))


@pytest.mark.parametrize(("head_map", "reads"), [("grouped", [0, 0, 0, 1, 1, 1]), ("interleaved", [0, 1, 0, 1, 0, 1])])
def test_a_query_head_reads_this_key_head(head_map, reads):
    value = np.array([10.0, 20.0]).reshape(1, 2, 1, 1)
    out = attention(np.zeros((1, 6, 1, 1)), np.zeros((1, 2, 1, 1)), value, head_map=head_map)
    np.testing.assert_array_equal(out[0, :, 0, 0], value[0, reads, 0, 0])


@pytest.mark.parametrize("width", [1, 3, 64, 80])
def test_the_default_scale_is_the_inverse_root_of_the_query_width(width):
    case = arrays(np.random.default_rng(width), d=width, e=5)
    agree(attention_with_lse(**case), attention_with_lse(**case, scale=1 / math.sqrt(width)))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 1), (3, 5), (4, 1, 1), (1, 3, 5), (2, 1, 1, 5), (2, 4, 3, 5)])
def test_a_mask_or_bias_of_lower_rank_means_its_broadcast(shape):
    rng = np.random.default_rng(3)
    case, mask, bias = arrays(rng), rng.random(shape) < 0.7, rng.normal(size=shape)
    full = [np.broadcast_to(array, (2, 4, 3, 5)).copy() for array in (mask, bias)]
    np.testing.assert_array_equal(attention(**case, mask=mask, bias=bias), attention(**case, mask=full[0], bias=full[1]))


@pytest.mark.parametrize("empty", ["b", "l", "s", "e"])
@pytest.mark.parametrize("sinks", [None, np.arange(4.0)])
def test_an_empty_dimension_gives_an_answer_of_the_right_shape(empty, sinks):
    case = arrays(np.random.default_rng(0), **{empty: 0})
    out, lse = attention_with_lse(**case, sinks=sinks)
    assert out.shape == (*case["q"].shape[:3], case["v"].shape[3]) and lse.shape == case["q"].shape[:3]
    if empty == "s":
        np.testing.assert_array_equal(lse, np.broadcast_to(-np.inf if sinks is None else sinks[:, None], lse.shape))
        for declared, filler in {"zeros": 0.0, "mean": 0.0, "nan": np.nan if sinks is None else 0.0}.items():
            np.testing.assert_array_equal(attention(**case, sinks=sinks, empty_row=declared), np.full_like(out, filler))


@pytest.mark.parametrize("empty_row", ["zeros", "nan", "mean"])
def test_a_row_without_keys_is_what_the_convention_says_and_no_other_row_is(empty_row):
    case = arrays(np.random.default_rng(4))
    out, lse = attention_with_lse(**case, mask=np.array([[True], [False], [True]]), empty_row=empty_row)
    plain, plain_lse = attention_with_lse(**case)
    means = np.repeat(case["v"].mean(2), 2, axis=1)
    agree(out[:, :, 1], {"zeros": np.zeros_like(means), "nan": np.full_like(means, np.nan), "mean": means}[empty_row])
    assert (lse[:, :, 1] == -np.inf).all()
    agree((out[:, :, ::2], lse[:, :, ::2]), (plain[:, :, ::2], plain_lse[:, :, ::2]))


@pytest.mark.parametrize("empty_row", ["zeros", "nan", "mean"])
def test_a_sink_joins_the_denominator_only(empty_row):
    case, sinks = arrays(np.random.default_rng(5)), np.array([-3.0, 0.0, 2.0, 700.0])
    mask = np.array([[True], [False], [True]])
    bare, bare_lse = attention_with_lse(**case, mask=mask)
    out, lse = attention_with_lse(**case, mask=mask, sinks=sinks, empty_row=empty_row)
    agree((out, lse), (bare * np.exp(bare_lse - lse)[..., None], np.logaddexp(bare_lse, sinks[:, None])))
    assert not out[:, :, 1].any()  # a row without keys is not empty when it has a sink


@pytest.mark.parametrize("offset", [-1e5, 0.0, 1e5])
def test_the_logsumexp_is_the_logarithm_of_the_denominator_however_large_the_logits(offset):
    case, bias = arrays(np.random.default_rng(6)), np.full((), offset)
    logits = np.einsum("bhld,bhsd->bhls", case["q"], np.repeat(case["k"], 2, axis=1)) / math.sqrt(3)
    log = np.log(np.exp(logits).sum(-1)) + offset
    np.testing.assert_allclose(attention_with_lse(**case, bias=bias)[1], log, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(attention_with_lse(**case, bias=bias, lse_base="2")[1], log / math.log(2), rtol=1e-14, atol=1e-14)


def merged_by_loops(outs, lses, base):
    out, lse = np.zeros(outs.shape[1:]), np.full(lses.shape[1:], -np.inf)
    for index in np.ndindex(lse.shape):
        weights = [base ** part[index] for part in lses]
        if total := math.fsum(weights):
            lse[index] = math.log(total, base)
            for x in range(outs.shape[-1]):
                out[(*index, x)] = math.fsum(weight * part[index][x] for weight, part in zip(weights, outs, strict=True)) / total
    return out, lse


@pytest.mark.parametrize(("lse_base", "base"), [("e", math.e), ("2", 2.0)])
@pytest.mark.parametrize("parts", [0, 1, 2, 5])
def test_merging_means_what_loops_over_its_elements_compute(parts, lse_base, base):
    rng = np.random.default_rng(parts)
    outs, lses = rng.normal(size=(parts, 2, 3, 4, 2)), rng.normal(size=(parts, 2, 3, 4)) * 5
    lses[rng.random(lses.shape) < 0.4] = -np.inf
    garbage = np.where(np.isneginf(lses)[..., None], 1e300, outs)  # an empty part weighs nothing, whatever it holds
    agree(merge_attention_states(garbage, lses, lse_base=lse_base), merged_by_loops(outs, lses, base))


@pytest.mark.parametrize("lse_base", ["e", "2"])
@pytest.mark.parametrize("cuts", [(), (2,), (0, 3), (1, 1, 6), (2, 4, 7)])
def test_merging_the_parts_of_the_keys_gives_the_whole(cuts, lse_base):
    rng = np.random.default_rng(7)
    case, mask = arrays(rng, s=7), rng.random((4, 3, 7)) < 0.4
    mask[0, 1] = False  # a row that is empty in every part

    def state(start, stop):
        keys = {"k": case["k"][:, :, start:stop], "v": case["v"][:, :, start:stop], "mask": mask[..., start:stop]}
        return attention_with_lse(case["q"] * 9, **keys, lse_base=lse_base)

    whole, states = state(0, 7), [state(*bounds) for bounds in itertools.pairwise([0, *cuts, 7])]
    outs, lses = (np.stack(parts) for parts in zip(*states, strict=True))
    agree(merge_attention_states(outs, lses, lse_base=lse_base), whole)
    assert np.isneginf(whole[1][:, 0, 1]).all()


def test_unread_keys_are_those_that_no_query_reads_and_change_nothing():
    rng, hidden_keys = np.random.default_rng(8), 0
    elsewhere = {"v", "sinks", "empty_row", "lse_base"}  # do not decide which keys are read
    for _ in range(150):
        case = draw(rng) | {"empty_row": str(rng.choice(["zeros", "nan"]))}
        unread, out = unread_by(visible_keys)(case), attention_with_lse(**case)
        garbage = {name: np.where(unread[name], rng.choice([-1e300, 1e300], unread[name].shape), case[name]) for name in "kv"}
        for got, want in zip(attention_with_lse(**case | garbage), out, strict=True):
            np.testing.assert_array_equal(got, want)
        options, read = {name: value for name, value in case.items() if name not in elsewhere}, np.zeros(case["k"].shape[:3], bool)
        for b, h, i in np.ndindex(case["q"].shape[:3]):
            kv_head, keys, _ = see((b, h, i), **options)
            read[b, kv_head, keys] = True
        for name in "kv":
            np.testing.assert_array_equal(unread[name], np.broadcast_to(~read[..., None], case[name].shape), strict=True)
        hidden_keys += (~read).sum()
    assert hidden_keys > 100
    assert unread_by(visible_keys)(case | {"empty_row": "mean"}) == {}  # the mean of all values reads them all


def test_garbage_in_a_key_shows_only_in_rows_that_may_read_it():
    case, second = arrays(np.random.default_rng(9)), np.arange(5)[:, None] == 1
    garbage = {"k": np.where(second, 1e300, case["k"]), "v": np.where(second, -1e300, case["v"])}
    mask = np.array([[True, False, True, True, True]] * 2 + [[True] * 5])
    for bias in (np.zeros(()), np.full((), -1e30)):  # logits far below a finite stand-in for -inf
        clean, dirty = (attention(**arguments, mask=mask, bias=bias) for arguments in (case, case | garbage))
        np.testing.assert_array_equal(dirty[:, :, :2], clean[:, :, :2])
        assert (dirty[:, :, 2] != clean[:, :, 2]).any()


def test_inputs_of_any_dtype_are_read_exactly_and_left_alone():
    case = {name: array.astype(np.float32) for name, array in arrays(np.random.default_rng(10)).items()}
    case |= {"mask": np.tri(3, 5, 2, dtype=bool), "bias": np.ones(5, np.float32), "sinks": np.ones(4, np.float32)}
    wide = {name: array.copy() if array.dtype == bool else array.astype(np.float64) for name, array in case.items()}
    for array in case.values():
        array.setflags(write=False)
    np.testing.assert_array_equal(attention(**case), attention(**wide), strict=True)
    assert all(np.array_equal(case[name], wide[name]) for name in case)
