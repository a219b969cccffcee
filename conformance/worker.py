"""The process in which an implementation runs: ``python -m conformance.worker CONNECTION ARENA``.

It speaks JSON over a socket and shares arrays through the arena, so whatever the implementation does to this process,
the judge receives plain data. It decides nothing: it reports what came back.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from conformance.arena import Arena, ArrayView, aligned
from conformance.errors import UsageError
from conformance.loading import discover, load
from conformance.registry import Registration
from oracle.formats import FORMATS

__all__ = ["Worker", "main"]


class NumpyArrays:
    """How the numpy backend takes and gives arrays."""

    def take(self, arena: Arena, where: ArrayView) -> Any:
        """A view of shared memory as this backend's array."""
        return arena.view(where)

    def give(self, output: Any) -> tuple[np.ndarray | None, dict[str, Any]]:
        """A plain array, or None, and the facts that the judge wants to know."""
        if type(output) is not np.ndarray:
            return None, {"type": f"{type(output).__module__}.{type(output).__qualname__}"}
        return output, {"address": output.__array_interface__["data"][0]}


class TorchArrays:
    """How the torch backend takes and gives arrays."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch, self.device = torch, device

    def take(self, arena: Arena, where: ArrayView) -> Any:
        """A tensor on shared memory, with its storage offset; copied, with its strides, to a device that is not the CPU."""
        torch, storage = self.torch, arena.storage(where)
        is_bfloat16 = where.dtype == "bfloat16"  # which torch cannot take from NumPy
        flat = torch.from_numpy(storage.view(np.int16)).view(torch.bfloat16) if is_bfloat16 else torch.from_numpy(storage)
        size = storage.itemsize
        tensor = flat.as_strided(where.shape, [stride // size for stride in where.strides], (where.offset - where.start) // size)
        if self.device == "cpu":
            return tensor
        moved = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=self.device)
        return moved.copy_(tensor) if 0 not in tensor.stride() else tensor.to(self.device)

    def give(self, output: Any) -> tuple[np.ndarray | None, dict[str, Any]]:
        """A plain array, or None, and the facts that the judge wants to know."""
        torch = self.torch
        if type(output) is not torch.Tensor:
            return None, {"type": f"{type(output).__module__}.{type(output).__qualname__}"}
        facts: dict[str, Any] = {"address": output.data_ptr(), "device": output.device.type, "requires_grad": bool(output.requires_grad)}
        if output.layout is not torch.strided:
            return None, {**facts, "type": f"torch.Tensor with layout {output.layout}"}
        plain = output.detach().cpu().contiguous()
        if plain.dtype == torch.bfloat16:
            import ml_dtypes

            return plain.view(torch.int16).numpy().view(ml_dtypes.bfloat16), facts
        return plain.numpy(), facts


def _arrays_of(backend: str, device: str) -> NumpyArrays | TorchArrays:
    if backend == "numpy":
        if device != "cpu":
            raise UsageError(f"device={device!r}, but should be 'cpu' for the backend numpy")
        return NumpyArrays()
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"backend='torch' needs PyTorch, which cannot be imported here ({error}): pip install 'attest-attention[torch]'"
        ) from None
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device={device!r} cannot be used here, but should be a device that PyTorch has ({reason})") from None
    return TorchArrays(device)


class Worker:
    """Answers the judge's requests."""

    def __init__(self, connection: Connection | None, arena: Arena) -> None:
        self.connection, self.arena = connection, arena
        self.registration: Registration | None = None
        self.arrays: NumpyArrays | TorchArrays = NumpyArrays()
        self._inputs = range(0)  # addresses of the memory that holds the arguments

    def serve(self) -> None:
        """Answer until the judge hangs up."""
        assert self.connection is not None, "only a worker process serves"
        while True:
            try:
                request = json.loads(self.connection.recv_bytes())
            except (EOFError, OSError):
                return
            self.connection.send_bytes(json.dumps(self.answer(request)).encode())

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "discover": self.discover, "load": self.load, "call": self.call,
        }  # fmt: skip
        try:
            return answers[request["do"]](request)
        except UsageError as error:
            return {"usage_error": str(error)}

    def discover(self, request: dict[str, Any]) -> dict[str, Any]:
        """Everything registered through entry points."""
        found, problems = discover()
        return {
            "implementations": [registration.implementation.to_json() for registration in found],
            "problems": [[problem.source, problem.reason] for problem in problems],
        }

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Load a target; keep the last implementation for calls."""
        found = load(request["target"], method=request.get("method"), backend=request.get("backend"))
        self.registration = found[-1]
        self.arrays = _arrays_of(self.registration.implementation.backend, request.get("device") or "cpu")
        return {"implementations": [registration.implementation.to_json() for registration in found]}

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Call the implementation on each set of arguments in turn; report on all, store the results of those asked for."""
        assert self.registration is not None, "load comes first"
        self.arena.reserve(request["size"])
        # Storing an output may map the arena anew. The map with the arguments is held until the end, else a fresh output
        # could come to lie at its addresses and look like an alias.
        memory = self.arena.memory
        self._inputs = range(memory.ctypes.data, memory.ctypes.data + memory.size)
        offset = aligned(request["size"])
        reports: list[dict[str, Any]] = []
        held: list[tuple[Any, list[np.ndarray | None]]] = []
        for call in request["calls"]:
            for source, start, size in call["copies"]:
                memory[start : start + size] = memory[source : source + size]
            arguments = {view["name"]: self.arrays.take(self.arena, ArrayView.from_json(view)) for view in call["arrays"]}
            options = {name: tuple(value) if isinstance(value, list) else value for name, value in call["options"].items()}
            positional = [arguments.pop(name) for name in call["positional"]]
            try:
                result = self.registration.function(*positional, **arguments, **options)
            except (Exception, SystemExit) as error:
                frames = traceback.format_exception(error)
                reports.append({"exception": type(error).__name__, "message": str(error)[:2000], "traceback": "".join(frames)[-4000:]})
                break
            for source, start, size in call["keep"]:
                memory[start : start + size] = memory[source : source + size]
            report, plain, offset = self._report(result, offset, call["outputs"])
            reports.append(report)
            held.append((result, plain))
        for report, (result, before) in zip(reports, held, strict=False):
            report["changed_later"] = self._changed(result, before)
        del memory
        return {"reports": reports}

    def _report(self, result: Any, offset: int, wanted: list[str]) -> tuple[dict[str, Any], list[np.ndarray | None], int]:
        results = list(result) if isinstance(result, (tuple, list)) and len(wanted) > 1 else [result]
        outputs: list[dict[str, Any]] = []
        plain: list[np.ndarray | None] = []
        for name, output in zip(wanted, results, strict=False):
            array, facts = self._given(output)
            address = facts.pop("address", None)
            if array is not None:
                facts["aliases_input"] = array.size > 0 and address in self._inputs
                facts["view"] = self.arena.store(name, array, offset).to_json()
                offset = aligned(offset + array.nbytes)
            outputs.append({"name": name, **facts})
            plain.append(None if array is None else array.copy())
        return {"outputs": outputs, "count": len(results)}, plain, offset

    def _given(self, output: Any) -> tuple[np.ndarray | None, dict[str, Any]]:
        """What the backend makes of an output; only arrays of plain numbers leave this process."""
        kind = f"{type(output).__module__}.{type(output).__qualname__}"
        try:
            array, facts = self.arrays.give(output)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:  # a tensor without data, say
            return None, {"type": f"{kind} without readable elements ({str(error).splitlines()[0]})"}
        if array is not None and array.dtype.name not in FORMATS and array.dtype.kind not in "biufc":
            return None, {"type": f"{kind} of {array.dtype.name}"}
        return array, facts

    def _changed(self, result: Any, before: list[np.ndarray | None]) -> bool:
        results = list(result) if isinstance(result, (tuple, list)) and len(before) > 1 else [result]
        now = [self._given(output)[0] for output in results]
        return any(a is not None and b is not None and a.tobytes() != b.tobytes() for a, b in zip(now, before, strict=False))


def main() -> None:
    """Entry point of the worker process."""
    connection, arena = Connection(int(sys.argv[1])), Arena(int(sys.argv[2]))
    quiet = os.open(os.devnull, os.O_RDWR)  # what a kernel prints must neither mix with our output nor fill a pipe
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    faulthandler.disable()
    np.seterr(all="ignore")
    Worker(connection, arena).serve()


if __name__ == "__main__":
    main()
