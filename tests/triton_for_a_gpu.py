"""Compile the kernels of implementations/triton for a GPU, on a machine without one, and tell as JSON which of them do not.

Triton's compiler needs no GPU, only what a launch would hand it: every launch of a few calls, one of them without keys, is compiled
instead of run. What the interpreter lets pass and the compiler does not is found so, a product of two dtypes for example.
"""

import importlib
import json
import os
import pkgutil
import random
import sys

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

import implementations.triton
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.isolation.backends import arrays_of
from conformance.isolation.direct import direct_arguments
from conformance.registry import registered

TARGET = GPUTarget("cuda", 90, 32)
POINTERS = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.uint8: "*u8", torch.bool: "*i1", torch.int32: "*i32",
    torch.int64: "*i64",
}  # fmt: skip
TRIES = 2000

compiled, failed = {}, {}


def type_of(value):
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def compile_instead(kernel, *args, grid, warmup, **named):
    """What takes the place of a launch; 1 and None are constants, as they are in one."""
    given = {**dict(zip([one.name for one in kernel.params], args, strict=False)), **named}
    types, constants = {}, {}
    for one in kernel.params:
        value = given.get(one.name, one.default)
        if one.is_constexpr or value is None or (type(value) is int and value == 1 and not one.do_not_specialize):
            types[one.name], constants[(one.num,)] = "constexpr", value
        else:
            types[one.name] = type_of(value)
    key = (kernel.__name__, str(types), str(constants))
    if key not in compiled:
        compiled[key] = True
        options = {name: named[name] for name in ("num_warps", "num_stages") if name in named}
        try:
            triton.compile(ASTSource(kernel, types, constants), target=TARGET, options=options)
        except Exception as error:
            failed.setdefault(kernel.__name__, f"{type(error).__name__}: {str(error)[-800:]} {types} {constants}")


def cases(implementation, dtype):
    """One call, and one without keys where the method has keys of their own number."""
    rng = random.Random(0)
    yield random_case(rng, implementation, dtype, STAGES[1])
    for _ in range(TRIES):
        drawn = random_case(rng, implementation, dtype, STAGES[0])
        if drawn.dims.get("s") == 0 and all(size for name, size in drawn.dims.items() if name != "s"):
            yield drawn
            return


def call(registration, case):
    leading, keywords = direct_arguments(registration.implementation, case, case.arguments(), arrays_of("torch", "cpu"))
    registration.callable(*leading, **keywords)


def main(dtypes):
    for module in pkgutil.iter_modules(implementations.triton.__path__):
        importlib.import_module(f"{implementations.triton.__name__}.{module.name}")
    JITFunction.run = compile_instead
    names = {}
    for name, registration in registered().items():
        if name.startswith("triton."):
            before = len(compiled)
            for dtype in dtypes:
                for case in cases(registration.implementation, dtype):
                    call(registration, case)
            names[name] = len(compiled) - before
    sys.stdout.write(json.dumps({"compiled": names, "failed": failed}))


if __name__ == "__main__":
    main(sys.argv[1:])
