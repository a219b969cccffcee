"""The oracle: the exact meaning of every attention method, written once in plain NumPy and read in several ways."""

from oracle import (  # noqa: F401  (they declare their methods)
    continuous_batching,
    decoding,
    dense,
    differential,
    experts,
    gated,
    gated_delta,
    latent,
    linear,
    load_balance,
    low_precision,
    low_rank,
    microscaling,
    native_sparse,
    parallel,
    polynomial,
    quantisation,
    random_features,
    rotary,
    routing,
    serving,
    sparse,
)
from oracle.catalogue import METHODS, Method, OptionError, get_method, method
from oracle.dense import attention, attention_with_lse, merge_attention_states
from oracle.signature import ShapeError

__all__ = [
    "METHODS",
    "Method",
    "OptionError",
    "ShapeError",
    "attention",
    "attention_with_lse",
    "get_method",
    "merge_attention_states",
    "method",
]
