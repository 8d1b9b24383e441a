"""ONNX models as plans on an NVIDIA device: TensorRT, or TensorRT for RTX where that is installed.

A plan is built once for a device and kept; `engines.build` says how, `engines.plan_cache` where.
Tensors stay on the device between the inputs and the outputs of a run. `python -m` of this file
builds the plan that is ordered in the current folder; see `engines.build_apart`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, cast

from engines.base import PLAINLY, Arrays, Availability, Loading, Runtime, Session
from engines.build import make_order, recipe_of
from engines.build_apart import build_apart, main
from engines.devices import find_devices
from engines.errors import (
    DeviceMissingError,
    InferenceError,
    ModelInvalidError,
    OutOfMemoryError,
    UnavailableError,
)
from engines.graphs import read_graph
from engines.manifest import Device, Precision
from engines.plan_cache import PlanCache, read_sealed, write_sealed
from engines.plan_key import InputProfile
from engines.plan_loading import KeptBeside, built_by, check_shapes, open_plan, target_of
from engines.tensorrt_api import Context, CudaEngine, Library, RuntimeCache

if TYPE_CHECKING:
    import torch

    Tensors: TypeAlias = Mapping[str, torch.Tensor]

MODULE: Final = "engines.runtimes.tensorrt"
BACKENDS: Final = ("tensorrt", "tensorrt_rtx")
"""Modules, the first that is installed is used."""
TORCH_TYPES: Final[Mapping[str, str]] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


class TensorRt(Runtime):
    """Runs ONNX models as TensorRT plans."""

    name: ClassVar[str] = "tensorrt"
    requires: ClassVar[tuple[str, ...]] = ("tensorrt", "tensorrt_rtx", "torch")
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "tf32", "float16")

    def is_available(self, device: Device | None = None) -> Availability:  # noqa: ARG002 - it has one
        """Say whether a library, a device and torch, which holds tensors on it, are here."""
        if not _installed():
            reason = "neither the package tensorrt nor the package tensorrt_rtx is installed"
            return Availability(available=False, reason=reason)
        if reason := find_devices().reason:
            return Availability(available=False, reason=reason, device_missing=True)
        reason = _no_torch()
        return Availability(available=not reason, reason=reason)

    def load(self, model: bytes, *, threads: int, how: Loading = PLAINLY) -> Session:  # noqa: ARG002 - the device's
        """Load the plan of a model; it is built now, for this device, where it is not kept."""
        graph = read_graph(model)
        found = self.is_available()
        if not found.available:
            kind = DeviceMissingError if found.device_missing else UnavailableError
            raise kind(found.reason)
        backend = _installed()[0]
        library = find_library(backend)
        gpu = find_devices().gpus[0]
        order = make_order(
            model,
            how.shapes,
            precision=how.precision,
            target=target_of(library, gpu),
            workspace_mib=how.workspace_mib,
        )
        kept = KeptBeside(how.plans, f"{backend}-{library.__version__}-{gpu.capability}")
        recipe = recipe_of(order, graph, built_by(library), f"{gpu.capability} {gpu.name}")

        def build() -> bytes:
            built = build_apart(kept.with_timing(order), backend=backend, module=MODULE)
            kept.keep_timing(built)
            return built.plan

        plan = PlanCache(how.plans).plan(recipe, build) if how.plans is not None else build()
        engine = open_plan(library, plan)
        return TensorRtSession(library, engine, order.inputs, kept.kernels(recipe.key()))


def find_library(backend: str) -> Library:
    """Import one of the two libraries.

    Raises:
        UnavailableError: it is not installed, or cannot be loaded.
    """
    try:
        if backend == "tensorrt_rtx":
            import tensorrt_rtx

            return cast("Library", tensorrt_rtx)
        import tensorrt

        return cast("Library", tensorrt)
    except (ImportError, OSError) as error:
        raise UnavailableError(f"{backend} cannot be loaded: {error}") from error


class TensorRtSession(Session):
    """A plan on the device, with a stream of its own.

    Where every input has one shape only, the work is captured once as a CUDA graph and replayed;
    TensorRT for RTX does that itself.
    """

    def __init__(
        self,
        library: Library,
        engine: CudaEngine,
        inputs: tuple[InputProfile, ...],
        kernels: Path | None,
    ) -> None:
        import torch

        self._inputs = inputs
        self._fixed = all(item.fixed for item in inputs)
        self._stream = torch.cuda.Stream()
        self._types = _torch_types(engine)
        self._outputs = _outputs(engine, inputs)
        self._kernels = kernels
        self._cache: RuntimeCache | None = None
        self._context: Context | None = self._make_context(library, engine)
        self._replays = self._fixed and self._cache is None
        self._replay: _Replay | None = None
        self._pinned: dict[str, torch.Tensor] = {}

    def run(self, inputs: Arrays) -> Arrays:
        """Run the model once on arrays of the host, by way of page-locked memory."""
        import torch

        names = {item.name for item in self._inputs}
        if set(inputs) != names:
            raise ModelInvalidError(f"the model takes {sorted(names)}, not {sorted(inputs)}")
        with torch.cuda.stream(self._stream):
            tensors = {name: self._to_device(name, array) for name, array in inputs.items()}
            found = self.run_tensors(tensors)
            return {name: tensor.cpu().numpy() for name, tensor in found.items()}

    def run_tensors(self, inputs: Tensors) -> Tensors:
        """Run the model once on tensors of the device; what comes back stays there.

        The tensors that come back are good until the next run.

        Raises:
            ProfileError: a shape is not one that the plan was built for.
            InferenceError, OutOfMemoryError: what the library said.
        """
        import torch

        context = self._context
        if context is None:
            raise InferenceError("the session is closed")
        check_shapes(self._inputs, {name: tuple(item.shape) for name, item in inputs.items()})
        try:
            with torch.cuda.stream(self._stream):
                if self._replays:
                    return self._replayed(context, inputs)
                outputs = self._bind(context, inputs)
                _execute(context, self._stream.cuda_stream)
                return outputs
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfMemoryError("not enough memory on the device") from error
        except RuntimeError as error:
            raise InferenceError(f"TensorRT: {str(error)[:300]}") from error

    def close(self) -> None:
        """Give the device's memory back, and keep the kernels that were made on it."""
        if self._context is not None and self._cache is not None and self._kernels is not None:
            write_sealed(self._kernels, bytes(self._cache.serialize()))
        self._context = self._replay = self._cache = None
        self._pinned.clear()

    def _make_context(self, library: Library, engine: CudaEngine) -> Context:
        """Make a context; that of TensorRT for RTX with its kernels and its own graphs."""
        strategy = getattr(library, "CudaGraphStrategy", None)
        if strategy is None:
            context = engine.create_execution_context()
        else:
            config = engine.create_runtime_config()
            if self._fixed:
                config.cuda_graph_strategy = strategy.__members__["WHOLE_GRAPH_CAPTURE"]
            cache = config.create_runtime_cache()
            if self._kernels is not None and (data := read_sealed(self._kernels)):
                cache.deserialize(data)
            config.set_runtime_cache(cache)
            self._cache = cache
            context = engine.create_execution_context(config)
        if context is None:
            raise OutOfMemoryError("not enough memory on the device for a context")
        return context

    def _to_device(self, name: str, array: object) -> torch.Tensor:
        import torch

        host = torch.from_numpy(array)
        pinned = self._pinned.get(name)
        if pinned is None or pinned.shape != host.shape or pinned.dtype != host.dtype:
            pinned = self._pinned[name] = torch.empty_like(host, pin_memory=True)
        self._stream.synchronize()
        pinned.copy_(host)
        return pinned.to("cuda", non_blocking=True)

    def _bind(self, context: Context, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Tell the context where its tensors are, and make those that come out."""
        import torch

        for name, tensor in inputs.items():
            wanted = self._types[name]
            if tensor.dtype != wanted or not tensor.is_contiguous() or not tensor.is_cuda:
                raise InferenceError(f"{name}: the model takes {wanted}, whole and on the device")
            context.set_input_shape(name, tuple(tensor.shape))
            context.set_tensor_address(name, tensor.data_ptr())
        outputs = {}
        for name in self._outputs:
            shape = tuple(context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise InferenceError(f"{name}: its shape depends on the values of the inputs")
            outputs[name] = torch.empty(shape, dtype=self._types[name], device="cuda")
            context.set_tensor_address(name, outputs[name].data_ptr())
        return outputs

    def _replayed(self, context: Context, inputs: Tensors) -> Tensors:
        import torch

        if self._replay is None:
            kept = {name: tensor.clone() for name, tensor in inputs.items()}
            outputs = self._bind(context, kept)
            _execute(context, self._stream.cuda_stream)
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                _execute(context, self._stream.cuda_stream)
            self._replay = _Replay(graph, kept, outputs)
        for name, tensor in inputs.items():
            self._replay.inputs[name].copy_(tensor, non_blocking=True)
        self._replay.graph.replay()
        return self._replay.outputs


@dataclass(frozen=True, slots=True)
class _Replay:
    """A captured run, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]


def _installed() -> list[str]:
    return [name for name in BACKENDS if importlib.util.find_spec(name) is not None]


def _no_torch() -> str:
    """Say what is missing of torch, which holds tensors on the device; nothing: it is here."""
    if importlib.util.find_spec("torch") is None:
        return "the package torch is not installed, which holds tensors on the device"
    import torch

    return "" if torch.cuda.is_available() else "this torch was built without CUDA"


def _execute(context: Context, stream: int) -> None:
    if not context.execute_async_v3(stream):
        raise InferenceError("TensorRT did not run the plan")


def _torch_types(engine: CudaEngine) -> dict[str, torch.dtype]:
    import torch

    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    kinds = {name: str(engine.get_tensor_dtype(name)).rpartition(".")[2] for name in names}
    return {name: getattr(torch, TORCH_TYPES[kind]) for name, kind in kinds.items()}


def _outputs(engine: CudaEngine, inputs: tuple[InputProfile, ...]) -> tuple[str, ...]:
    taken = {item.name for item in inputs}
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return tuple(name for name in names if name not in taken)


if __name__ == "__main__":
    main(find_library)
