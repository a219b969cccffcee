"""Implementations in JAX: kernels of our own, compiled by XLA, and adapters to what the library ships."""
