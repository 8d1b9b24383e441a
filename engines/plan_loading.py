"""What must be known of a plan before it runs: who built it, for which device, if it is sound.

The library is handed in; see `engines.tensorrt_api`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engines.build import CURRENT, BuildOrder, Built, Said, listen, out_of_profile
from engines.devices import Gpu, find_devices
from engines.errors import (
    DeviceMissingError,
    EngineError,
    ModelInvalidError,
    OutOfMemoryError,
    PlanChangedError,
    PlanDeviceError,
    PlanError,
    PlanVersionError,
    ProfileError,
)
from engines.plan_cache import read_sealed, write_sealed
from engines.plan_key import BuiltBy, InputProfile
from engines.tensorrt_api import CudaEngine, Library

INVALIDITY: Final[Mapping[str, type[PlanError]]] = {
    "VERSION_MISMATCH": PlanVersionError,
    "UNSUPPORTED_CC": PlanDeviceError,
    "MALFORMED_ENGINE": PlanChangedError,
}
"""What TensorRT for RTX says of a plan before it is loaded; looked through in this order."""


def built_by(library: Library) -> BuiltBy:
    """Say what builds plans here."""
    return BuiltBy(backend=library.__name__, version=library.__version__, cuda=_cuda(library))


def target_of(library: Library, gpu: Gpu) -> str:
    """Return the library's name of a device; CURRENT where it has none for it."""
    named = getattr(library, "ComputeCapability", None)
    return gpu.capability if named is not None and gpu.capability in named.__members__ else CURRENT


def open_plan(library: Library, plan: bytes) -> CudaEngine:
    """Bring a plan, whose digest was checked, onto the device.

    Raises:
        DeviceMissingError: there is no device; libraries say so by giving None.
        PlanVersionError, PlanDeviceError, PlanChangedError: what the library says of the plan.
        OutOfMemoryError, PlanError: it could not be loaded for another reason.
    """
    log, said = listen(library)
    runtime = library.Runtime(log)
    if hasattr(runtime, "get_engine_validity"):
        _, diagnostics = runtime.get_engine_validity(plan)
        refuse_plan(library, int(diagnostics))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise _not_loaded(library, said)
    return engine


def refuse_plan(library: Library, diagnostics: int) -> None:
    """Raise what the library's diagnostics say of a plan; nothing for none."""
    bits = getattr(library, "EngineInvalidityDiagnostics", None)
    for name, error in INVALIDITY.items():
        if bits is not None and diagnostics & int(bits.__members__[name]):
            raise error(f"{library.__name__} {library.__version__} says {name} of the plan")


@dataclass(frozen=True, slots=True)
class KeptBeside:
    """What is kept beside plans: timings of TensorRT, kernels of TensorRT for RTX."""

    folder: Path | None
    device: str

    def with_timing(self, order: BuildOrder) -> BuildOrder:
        """Return the order with the timings of this library and device."""
        data = read_sealed(self._timing) if self._timing is not None else b""
        return dataclasses.replace(order, timing=data)

    def keep_timing(self, built: Built) -> None:
        """Keep the timings as they are after a build."""
        if self._timing is not None and built.timing:
            write_sealed(self._timing, built.timing)

    def kernels(self, key: str) -> Path | None:
        """Return where the kernels of a plan are kept."""
        return self.folder / f"{key}.kernels" if self.folder is not None else None

    @property
    def _timing(self) -> Path | None:
        return self.folder / f"{self.device}.timing" if self.folder is not None else None


def check_shapes(inputs: tuple[InputProfile, ...], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse shapes that a plan was not built for.

    Raises:
        ModelInvalidError: the names are not those of the model.
        ProfileError: a shape lies outside its profile.
    """
    names = {item.name for item in inputs}
    if set(shapes) != names:
        raise ModelInvalidError(f"the model takes {sorted(names)}, not {sorted(shapes)}")
    if wrong := "; ".join(out_of_profile(inputs, shapes)):
        raise ProfileError(wrong)


def _cuda(library: Library) -> str:
    """Return CUDA's major.minor: the driver's, and that of the library's wheels where they say."""
    wheels = [
        found.name.rpartition("_cu")[2]
        for found in importlib.metadata.distributions()
        if found.name.startswith(f"{library.__name__}_cu") and found.name[-1].isdigit()
    ]
    driver = find_devices().driver_cuda
    return f"{driver or 'no driver'}, wheels {wheels[0] if wheels else 'unnamed'}"


def _not_loaded(library: Library, said: Said) -> EngineError:
    words = f"{library.__name__}: {said.errors()}"
    if reason := find_devices().reason:
        return DeviceMissingError(f"{reason}; {words}")
    if "memory" in words.lower():
        return OutOfMemoryError(f"the plan was not loaded: {words}")
    return PlanError(f"the plan was not loaded: {words}")
