"""How many bytes a cache of keys and values takes, by method.

Multi-query attention: Shazeer 2019, arXiv:1911.02150; grouped queries: Ainslie et al. 2023, arXiv:2305.13245; latent attention:
DeepSeek-V2, 2024, section 2.1, arXiv:2405.04434.
"""

from __future__ import annotations

from oracle.options import OptionError

__all__ = ["KV_CACHE_DIMS", "kv_cache_bytes"]

ALWAYS = ("tokens", "layers", "itemsize")

# The dimensions that each method needs, besides those of all; value_dim is head_dim where it is not given.
KV_CACHE_DIMS: dict[str, tuple[str, ...]] = {
    "mha": ("heads", "head_dim"),
    "gqa": ("heads", "kv_heads", "head_dim"),
    "mqa": ("heads", "head_dim"),
    "mla": ("latent_dim", "rope_dim"),
}


def kv_cache_bytes(method: str, **dims: int) -> int:
    """Bytes that the keys and values of some tokens take, without what pages round up.

    mha: tokens heads (head_dim + value_dim); gqa: with kv_heads for heads; mqa: with 1; mla: tokens (latent_dim + rope_dim), since
    one latent row serves keys and values, and the rotary part of the keys is kept beside it. All times layers times itemsize.

    The published example, 32 heads of 128 against a latent of 512, is 8 times less than the keys, or the values, alone: 4096 / 512.
    It omits that the latent stands for both, which makes it 16 times, and the rotary part: with rope_dim = 64 it is
    8192 / 576 = 14.2 times.

    Args:
        method: ``mha``, ``gqa``, ``mqa`` or ``mla``.
        dims: see `KV_CACHE_DIMS`; also tokens, and layers (1) and itemsize (2) unless they are the defaults, and value_dim.

    Raises:
        OptionError: the method is unknown, or a dimension is missing, unknown, no positive integer (tokens and rope_dim may be 0),
            or heads is no multiple of kv_heads.
    """
    if method not in KV_CACHE_DIMS:
        raise OptionError(f"method={method!r}, but should be one of {', '.join(KV_CACHE_DIMS)} [kv_cache_bytes]")
    needed = KV_CACHE_DIMS[method]
    allowed = (*ALWAYS, *needed, *(("value_dim",) if method != "mla" else ()))
    given = {"layers": 1, "itemsize": 2, **dims}
    for name, size in given.items():
        if name not in allowed:
            raise OptionError(f"{name}={size!r}, but {method} should have only {', '.join(allowed)} [kv_cache_bytes]")
        least = 0 if name in ("tokens", "rope_dim") else 1
        if not isinstance(size, int) or isinstance(size, bool) or size < least:
            raise OptionError(f"{name}={size!r}, but should be an integer >= {least} [kv_cache_bytes]")
    for name in ("tokens", *needed):
        if name not in given:
            raise OptionError(f"{name} is missing, but {method} should have {', '.join(('tokens', *needed))} [kv_cache_bytes]")
    if method == "gqa" and given["heads"] % given["kv_heads"]:
        raise OptionError(f"heads={given['heads']}, but should be a multiple of kv_heads={given['kv_heads']} [kv_cache_bytes]")
    if method == "mla":
        row = given["latent_dim"] + given["rope_dim"]
    else:
        kv_heads = {"mha": given["heads"], "gqa": given.get("kv_heads", 1), "mqa": 1}[method]
        row = kv_heads * (given["head_dim"] + given.get("value_dim", given["head_dim"]))
    return given["tokens"] * given["layers"] * row * given["itemsize"]
