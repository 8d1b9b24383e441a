"""ONNX -> network -> plan, with `tensorrt` or `tensorrt_rtx`: whichever module is handed in.

Networks are strongly typed: the graph says every type, and the builder chooses none. A plan is
built for compute capabilities that are named, or for the device that is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from engines.errors import (
    EngineError,
    ModelEmptyError,
    ModelUnsupportedError,
    OutOfMemoryError,
    PlanBuildError,
)
from engines.graphs import Graph, read_graph
from engines.half_precision import RECIPE, in_half_precision
from engines.manifest import Precision, ShapeTable
from engines.plan_key import BuiltBy, InputProfile, PlanRecipe, profiles
from engines.tensorrt_api import Builder, Config, Library, Network

AS_GIVEN: Final = "as given"
CURRENT: Final = "CURRENT"
"""The target that stands for the device that is here."""
LEVEL: Final = 3
"""The builder's optimisation level; it is its default, and said so that it is in the key."""
ERROR_SEVERITY: Final = 1
MEMORY_WORDS: Final = ("out of memory", "outofmemory", "bad_alloc", "workspace limit")
UNSUPPORTED_WORDS: Final = ("not supported", "unsupported", "cannot compile operation")
LONGEST_MESSAGE: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """What is to be built. `model` has the casts of its precision already.

    `targets` are compute capabilities by the library's names; `timing` is a timing cache to begin
    with, of TensorRT only.
    """

    model: bytes
    inputs: tuple[InputProfile, ...]
    precision: Precision
    targets: tuple[str, ...]
    workspace_mib: int
    timing: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A plan, and the timing cache as it is afterwards; empty where the library keeps none."""

    plan: bytes
    timing: bytes = b""


def make_order(
    model: bytes,
    shapes: Mapping[str, ShapeTable],
    *,
    precision: Precision,
    target: str,
    workspace_mib: int,
) -> BuildOrder:
    """Read a model, put its precision into it, and give its inputs their profiles.

    Raises:
        ModelInvalidError: the model is none, or its shapes do not fit it.
    """
    graph = read_graph(model)
    inputs = profiles(graph, shapes)
    prepared = in_half_precision(model) if precision == "float16" else model
    return BuildOrder(
        model=prepared,
        inputs=inputs,
        precision=precision,
        targets=(target,),
        workspace_mib=workspace_mib,
    )


def recipe_of(order: BuildOrder, model: Graph, built_by: BuiltBy, device: str) -> PlanRecipe:
    """Return everything that can change the plan; `model` is the graph before its casts.

    `device` names the device that a target CURRENT stands for.
    """
    return PlanRecipe(
        onnx_sha256=model.sha256,
        built_by=built_by,
        targets=tuple(device if target == CURRENT else target for target in order.targets),
        inputs=order.inputs,
        precision=order.precision,
        precision_recipe=RECIPE if order.precision == "float16" else AS_GIVEN,
        flags=("strongly typed", *(("tf32",) if order.precision == "tf32" else ())),
        limits={"workspace_mib": order.workspace_mib, "level": LEVEL},
    )


@dataclass(slots=True)
class Said:
    """What a library said as it worked, by severity: 0 and 1 are errors."""

    lines: list[tuple[int, str]] = field(default_factory=list)

    def errors(self) -> str:
        """Return the errors as one line."""
        found = [line for severity, line in self.lines if severity <= ERROR_SEVERITY]
        return " | ".join(found).replace("\n", " ")[:LONGEST_MESSAGE]


def listen(library: Library) -> tuple[object, Said]:
    """Return a logger of the library, and what it will have heard. It prints nothing."""
    said = Said()

    class Log(library.ILogger):  # type: ignore[name-defined,misc]  # the library has no types
        def __init__(self) -> None:
            library.ILogger.__init__(self)  # type: ignore[misc]  # as its bindings demand

        def log(self, severity: int, message: str) -> None:
            if int(severity) <= ERROR_SEVERITY:
                said.lines.append((int(severity), message))

    return Log(), said


def build_plan(library: Library, order: BuildOrder) -> Built:
    """Build a plan in this process.

    Raises:
        ModelEmptyError: the network computes nothing: parsers take no bytes at all for sound.
        ModelUnsupportedError: the library refuses a node, for these targets or for all.
        PlanBuildError, OutOfMemoryError: what else the library said.
    """
    log, said = listen(library)
    builder = library.Builder(log)
    builder.max_threads = 1
    network = _network(library, builder, order, log)
    config = builder.create_builder_config()
    _limit(library, config, order)
    _target(library, config, order.targets)
    _shape(builder, config, order.inputs)
    timed = _timed(library, config, order.timing)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failure(said.errors(), order.targets)
    timing = bytes(config.get_timing_cache().serialize()) if timed else b""
    return Built(plan=bytes(plan), timing=timing)


def _network(library: Library, builder: Builder, order: BuildOrder, log: object) -> Network:
    strongly = library.NetworkDefinitionCreationFlag.__members__.get("STRONGLY_TYPED")
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))  # type: ignore[call-overload]
    parser = library.OnnxParser(network, log)
    if not parser.parse(order.model):
        said = [parser.get_error(index) for index in range(parser.num_errors)]
        words = [f"{e.node_operator()} {e.node_name()}: {e.desc()}" for e in said]
        reason = " | ".join(words).replace("\n", " ")[:LONGEST_MESSAGE]
        raise ModelUnsupportedError(f"the parser refuses the model: {reason}")
    if not network.num_inputs or not network.num_outputs:
        raise ModelEmptyError("the model is empty: the network has no input or no output")
    return network


def _limit(library: Library, config: Config, order: BuildOrder) -> None:
    pool = library.MemoryPoolType.__members__["WORKSPACE"]
    config.set_memory_pool_limit(pool, order.workspace_mib << 20)
    config.builder_optimization_level = LEVEL
    tf32 = library.BuilderFlag.__members__["TF32"]
    if order.precision == "tf32":
        config.set_flag(tf32)
    else:
        config.clear_flag(tf32)


def _target(library: Library, config: Config, targets: tuple[str, ...]) -> None:
    """Name the targets; a library without names builds for the device that is here."""
    named = getattr(library, "ComputeCapability", None)
    if named is None:
        if targets != (CURRENT,):
            raise PlanBuildError(f"{library.__name__} builds for the device here, not {targets}")
        return
    unknown = [target for target in targets if target not in named.__members__]
    if unknown:
        raise PlanBuildError(f"{library.__name__} builds for no {unknown[0]}")
    vars_of_config: object = config
    set_capability = getattr(vars_of_config, "set_compute_capability")  # noqa: B009 - RTX only
    setattr(vars_of_config, "num_compute_capabilities", len(targets))  # noqa: B010 - RTX only
    for index, target in enumerate(targets):
        if not set_capability(named.__members__[target], index):
            raise PlanBuildError(f"{library.__name__} does not take the target {target}")


def _shape(builder: Builder, config: Config, inputs: tuple[InputProfile, ...]) -> None:
    profile = builder.create_optimization_profile()
    for item in inputs:
        profile.set_shape(item.name, item.min, item.opt, item.max)
    if config.add_optimization_profile(profile) < 0:
        raise PlanBuildError("the library does not take the shapes of the inputs")


def _timed(library: Library, config: Config, timing: bytes) -> bool:
    """Give TensorRT its timing cache; TensorRT for RTX measures nothing."""
    if hasattr(library, "ComputeCapability"):
        return False
    cache = config.create_timing_cache(timing)
    config.set_timing_cache(cache, False)
    return True


def _failure(words: str, targets: tuple[str, ...]) -> EngineError:
    """Sort what a builder said: all of these come as a plan that is None."""
    lower = words.lower()
    where = ", ".join(targets)
    if any(word in lower for word in MEMORY_WORDS):
        return OutOfMemoryError(f"building for {where}: {words}")
    if any(word in lower for word in UNSUPPORTED_WORDS):
        return ModelUnsupportedError(f"not for {where}: {words}")
    return PlanBuildError(f"building for {where}: {words or 'the library gave no reason'}")


def out_of_profile(
    inputs: tuple[InputProfile, ...], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    """Yield a sentence for every input whose shape the plan was not built for."""
    for item in inputs:
        shape = shapes[item.name]
        if not item.holds(shape):
            yield f"{item.name} has the shape {shape}; the plan takes {item.min} to {item.max}"
