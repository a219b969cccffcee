"""The built-in implementations: each method at least once per backend, written unlike its specification.

They register with `conformance` as any third party would. Nothing is imported here, so that a machine without a backend's
library can still list what there is: `MODULES` names, by backend, the modules that register its implementations.
"""

MODULES = {
    "numpy": ("implementations.numpy.dense",),
    "torch": (
        "implementations.torch.dense",
        "implementations.torch.sdpa",
        "implementations.torch.flex",
        "implementations.torch.multihead",
    ),
}
