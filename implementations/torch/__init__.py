"""Implementations in PyTorch: kernels of our own, on any device, and thin adapters to what the library ships.

Importing the package registers them.
"""

from importlib import import_module

from implementations import MODULES

for _module in MODULES["torch"]:
    import_module(_module)
