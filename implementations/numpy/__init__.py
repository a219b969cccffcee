"""Implementations in NumPy: every dtype of the suite, bfloat16 through `ml_dtypes`. Importing the package registers them."""

from importlib import import_module

from implementations import MODULES

for _module in MODULES["numpy"]:
    import_module(_module)
