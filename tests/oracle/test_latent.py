"""Latent attention: its meaning, its enclosure, and a budget that admits both orders of summation."""

import ml_dtypes
import numpy as np
import pytest

from oracle import METHODS, ShapeError, attention
from oracle.readings import budget, enclosure, expected, value
from oracle.readings.balls import midpoints, radii
from oracle.readings.contract import CONTRACTS

METHOD = METHODS["latent_attention"]
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def draw(seed, *, queries=5, keys=9, heads=3, width=8, rotated=4, rank=6, values=5, gain=1.0, **options):
    rng = np.random.default_rng(seed)
    return {
        "q_nope": gain * rng.standard_normal((2, heads, queries, width)),
        "q_rope": gain * rng.standard_normal((2, heads, queries, rotated)),
        "c_kv": rng.standard_normal((2, keys, rank)), "k_rope": rng.standard_normal((2, keys, rotated)),
        "w_uk": rng.standard_normal((heads, rank, width)) / 2, "w_uv": rng.standard_normal((heads, rank, values)), **options,
    }  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(5, 9), (9, 5), (1, 7), (4, 0)])
def test_it_is_attention_with_expanded_keys_and_values(queries, keys, causal):
    given = draw(0, queries=queries, keys=keys, causal=causal)
    heads = given["q_nope"].shape[1]
    k = np.concatenate([
        np.einsum("bsc,hcd->bhsd", given["c_kv"], given["w_uk"]), np.repeat(given["k_rope"][:, None], heads, axis=1),
    ], axis=3)  # fmt: skip
    q = np.concatenate([given["q_nope"], given["q_rope"]], axis=3)
    v = np.einsum("bsc,hce->bhse", given["c_kv"], given["w_uv"])
    np.testing.assert_allclose(METHOD(**given), attention(q, k, v, causal=causal), atol=1e-13)
    np.testing.assert_allclose(METHOD(**given, scale=0.2), attention(q, k, v, causal=causal, scale=0.2), atol=1e-13)


def test_an_identity_for_weights_leaves_one_head_of_plain_attention():
    given = draw(1, heads=1, width=6, values=6) | {"w_uk": np.eye(6)[None], "w_uv": np.eye(6)[None]}
    q = np.concatenate([given["q_nope"], given["q_rope"]], axis=3)
    k = np.concatenate([given["c_kv"], given["k_rope"]], axis=2)[:, None]
    np.testing.assert_allclose(METHOD(**given), attention(q, k, given["c_kv"][:, None]), atol=1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_the_value_lies_in_its_enclosure_to_one_part_in_1e12_of_its_terms(seed):
    given = draw(seed, causal=True, gain=2.0)
    (got,), (exact,) = value(METHOD, given), enclosure(METHOD, given)
    terms = (np.abs(given["c_kv"])[:, None] @ np.abs(given["w_uv"])).max()
    assert (np.abs(got - midpoints(exact)) + radii(exact) <= 1e-12 * terms).all()


def expanded(given, cast):
    """Keys and values of every head, stored."""
    latent = given["c_kv"].astype(np.float32)[:, None]
    keys, values = ((latent @ given[name].astype(np.float32)).astype(cast).astype(np.float32) for name in ("w_uk", "w_uv"))
    weights = softmax(given, given["q_nope"].astype(np.float32) @ keys.swapaxes(2, 3), cast)
    return (weights @ values).astype(given["q_nope"].dtype)


def absorbed(given, cast):
    """Queries and results of latent width, stored."""
    latent = given["c_kv"].astype(np.float32)[:, None]
    queries = (given["q_nope"].astype(np.float32) @ given["w_uk"].astype(np.float32).swapaxes(1, 2)).astype(cast).astype(np.float32)
    weights = softmax(given, queries @ latent.swapaxes(2, 3), cast)
    gathered = (weights @ latent).astype(cast).astype(np.float32)
    return (gathered @ given["w_uv"].astype(np.float32)).astype(given["q_nope"].dtype)


def softmax(given, content, cast):
    queries, keys, scale = content.shape[2], content.shape[3], np.float32(12**-0.5)
    logits = (content + given["q_rope"].astype(np.float32) @ given["k_rope"].astype(np.float32)[:, None].swapaxes(2, 3)) * scale
    hidden = (np.arange(keys) > np.arange(queries)[:, None] + keys - queries) & given["causal"]
    logits = np.where(hidden, -np.inf, logits)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(cast).astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [expanded, absorbed])
@pytest.mark.parametrize("gain", [0.01, 1.0, 10.0])
def test_both_forms_stay_within_the_budget(kernel, dtype, gain):
    for seed in range(8):
        given = draw(seed, causal=seed % 2 == 1, gain=gain)
        given = {name: x.astype(DTYPES[dtype]) if isinstance(x, np.ndarray) else x for name, x in given.items()}
        want = expected(budget(METHOD, given, CONTRACTS[dtype])[0], dtype)
        for cast in (DTYPES[dtype], np.float32):
            got = kernel(given, cast).astype(np.float64)
            assert (np.abs(got - want.value) <= want.budget).all()


@pytest.mark.parametrize("name", ["c_kv", "k_rope", "w_uk", "w_uv"])
def test_an_argument_that_is_off_by_one_in_ten_thousand_leaves_the_budget(name):
    given = {key: np.float32(x) if isinstance(x, np.ndarray) else x for key, x in draw(3, causal=False).items()}
    want = expected(budget(METHOD, given, CONTRACTS["float32"])[0], "float32")
    got = expanded({**given, name: given[name] * np.float32(1.0001)}, np.float32)
    assert (np.abs(got - want.value) > want.budget).any()


def test_shapes_that_do_not_fit_are_named():
    given = draw(4)
    with pytest.raises(ShapeError, match=r"w_uk.shape\[1\]=5, but should be c=6 as in c_kv"):
        METHOD(**{**given, "w_uk": given["w_uk"][:, :5]})
    with pytest.raises(ShapeError, match=r"k_rope.shape\[2\]=3, but should be r=4 as in q_rope"):
        METHOD(**{**given, "k_rope": given["k_rope"][..., :3]})
