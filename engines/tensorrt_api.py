"""What is used of TensorRT, as types: `tensorrt` and `tensorrt_rtx` both have it.

The libraries bring no types, and only the runtime imports them; it hands its module in here. What
one of them lacks is asked for by `getattr` where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Tensor(Protocol):
    """An input or output of a network."""

    name: str


class Network(Protocol):
    """A graph that is being made."""

    num_inputs: int
    num_outputs: int

    def get_input(self, index: int, /) -> Tensor: ...
    def get_output(self, index: int, /) -> Tensor: ...


class ParserError(Protocol):
    """Why a parser refused a graph."""

    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class Parser(Protocol):
    """Reads ONNX into a network. Of no bytes at all it says that they are sound."""

    num_errors: int

    def parse(self, model: bytes, /) -> bool: ...
    def get_error(self, index: int, /) -> ParserError: ...


class Profile(Protocol):
    """The shapes that a plan is good for."""

    def set_shape(
        self, name: str, low: Sequence[int], usual: Sequence[int], high: Sequence[int], /
    ) -> None: ...


class TimingCache(Protocol):
    """How fast kernels were on a device; TensorRT alone measures."""

    def serialize(self) -> memoryview: ...


class Config(Protocol):
    """How a plan is built."""

    builder_optimization_level: int

    def add_optimization_profile(self, profile: Profile, /) -> int: ...
    def set_memory_pool_limit(self, pool: object, size: int, /) -> None: ...
    def clear_flag(self, flag: object, /) -> None: ...
    def set_flag(self, flag: object, /) -> None: ...
    def create_timing_cache(self, data: bytes, /) -> TimingCache: ...
    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool, /) -> bool: ...
    def get_timing_cache(self) -> TimingCache: ...


class Builder(Protocol):
    """Makes networks and plans."""

    max_threads: int

    def create_network(self, flags: int, /) -> Network: ...
    def create_builder_config(self) -> Config: ...
    def create_optimization_profile(self) -> Profile: ...
    def build_serialized_network(
        self, network: Network, config: Config, /
    ) -> memoryview | None: ...


class Context(Protocol):
    """One run of a plan at a time."""

    def set_input_shape(self, name: str, shape: tuple[int, ...], /) -> bool: ...
    def get_tensor_shape(self, name: str, /) -> Sequence[int]: ...
    def set_tensor_address(self, name: str, address: int, /) -> bool: ...
    def execute_async_v3(self, stream: int, /) -> bool: ...


class RuntimeCache(Protocol):
    """Kernels that TensorRT for RTX made on this device."""

    def serialize(self) -> memoryview: ...
    def deserialize(self, data: bytes, /) -> bool: ...


class RuntimeConfig(Protocol):
    """How a plan of TensorRT for RTX is run."""

    cuda_graph_strategy: object

    def create_runtime_cache(self) -> RuntimeCache: ...
    def set_runtime_cache(self, cache: RuntimeCache, /) -> bool: ...


class CudaEngine(Protocol):
    """A plan on a device."""

    num_io_tensors: int

    def get_tensor_name(self, index: int, /) -> str: ...
    def get_tensor_mode(self, name: str, /) -> object: ...
    def get_tensor_dtype(self, name: str, /) -> object: ...
    def create_execution_context(
        self, config: RuntimeConfig | None = None, /
    ) -> Context | None: ...
    def create_runtime_config(self) -> RuntimeConfig: ...


class PlanRuntime(Protocol):
    """Brings plans onto a device. Without a device it gives None, and no exception."""

    def deserialize_cuda_engine(self, plan: bytes, /) -> CudaEngine | None: ...
    def get_engine_validity(self, plan: bytes, /) -> tuple[object, int]: ...


class Enumeration(Protocol):
    """One of the libraries' enumerations."""

    __members__: Mapping[str, object]


class Library(Protocol):
    """The module `tensorrt` or `tensorrt_rtx`."""

    __name__: str
    __version__: str
    ILogger: type
    BuilderFlag: Enumeration
    MemoryPoolType: Enumeration
    NetworkDefinitionCreationFlag: Enumeration

    def Builder(self, log: object, /) -> Builder: ...
    def OnnxParser(self, network: Network, log: object, /) -> Parser: ...
    def Runtime(self, log: object, /) -> PlanRuntime: ...
