"""Implementations in PyTorch: kernels of our own, on any device, and thin adapters to what the library ships."""
