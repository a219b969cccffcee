"""Caches of keys and values under test: what they are asked for, how a script drives them, what their pages must add up to."""

from conformance.serving.protocol import KVCache, PagedKVCache

__all__ = ["KVCache", "PagedKVCache"]
