"""The conformance suite: fuzzes implementations of attention methods against the oracle and certifies them."""

from conformance.errors import UsageError
from conformance.registry import Implementation, block_sizes, register, split_counts

__all__ = ["Implementation", "UsageError", "block_sizes", "register", "split_counts"]
