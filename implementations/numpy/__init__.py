"""Implementations in NumPy: every dtype of the suite, bfloat16 through `ml_dtypes`."""
