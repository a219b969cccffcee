"""Models of one node, made when first needed and kept: one for each operator, set of attributes, and types of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

__all__ = ["Array", "run_node"]

Array = NDArray[Any]

# The standard's operators by the version of their set; those of com.microsoft have one version.
MICROSOFT = "com.microsoft"
OWN_VERSION = 1

# Read by every version of ONNX Runtime that has these operators.
IR_VERSION = 10

TYPES = {
    "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16, "bool": TensorProto.BOOL,
    "int32": TensorProto.INT32, "int64": TensorProto.INT64,
}  # fmt: skip

MOST_SESSIONS = 256


def run_node(
    operator: str, inputs: Sequence[Array | None], outputs: Sequence[str], attributes: Mapping[str, Any], opset: int, domain: str = ""
) -> list[Array]:
    """Run one node on the CPU.

    Args:
        operator: its name.
        inputs: in the operator's order; None for one that is left out.
        outputs: names of what it gives, of the type of the first input.
        attributes: those that are set; None for one that is not.
        opset: version of the standard's operators.
        domain: of the operator; the standard's by default.

    Raises:
        RuntimeError: ONNX Runtime refuses the model or the call.
    """
    # A session finds its inputs by name, of which an absent one has none.
    types = tuple(None if x is None else (x.dtype.name, x.ndim) for x in inputs)
    kept = tuple(sorted((name, value) for name, value in attributes.items() if value is not None))
    session = _session(operator, types, tuple(outputs), kept, opset, domain)
    given = {f"input{number}": x for number, x in enumerate(inputs) if x is not None}
    return [np.asarray(one) for one in session.run(None, given)]


@lru_cache(MOST_SESSIONS)
def _session(
    operator: str, types: tuple[tuple[str, int] | None, ...], outputs: tuple[str, ...], attributes: tuple[tuple[str, Any], ...],
    opset: int, domain: str,
) -> Any:  # fmt: skip
    names = ["" if one is None else f"input{number}" for number, one in enumerate(types)]
    node = helper.make_node(operator, names, list(outputs), domain=domain, **dict(attributes))
    # No size is named: every shape runs in the same session.
    present = [(name, *one) for name, one in zip(names, types, strict=True) if one is not None]
    given = [helper.make_tensor_value_info(name, TYPES[dtype], [None] * axes) for name, dtype, axes in present]
    first = types[0]
    assert first is not None, "every attention operator has queries"
    made = [helper.make_tensor_value_info(name, TYPES[first[0]], None) for name in outputs]
    sets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, OWN_VERSION)]
    model = helper.make_model(helper.make_graph([node], operator, given, made), opset_imports=sets, ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it refuses, it raises too
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
