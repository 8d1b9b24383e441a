"""Which NVIDIA devices this machine has, asked of the driver itself: no toolkit, no CUDA context.

The driver is native code that may hang or end the process: ask in one that may be lost.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

DRIVER: Final = "libcuda.so.1"
CAPABILITY_MAJOR: Final = 75
CAPABILITY_MINOR: Final = 76
NAME_BYTES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device: its name, its compute capability such as `SM89`, its memory."""

    index: int
    name: str
    capability: str
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """What the driver says. `driver_cuda` is the newest CUDA it runs, major.minor.

    Without a device `reason` says what is missing.
    """

    gpus: tuple[Gpu, ...] = ()
    driver_cuda: str = ""
    reason: str = ""


class _DriverError(Exception):
    """What a call of the driver answered, in its words."""


def find_devices(driver: str = DRIVER) -> Devices:
    """Ask the driver for its devices. Never raises: what is missing becomes the reason."""
    try:
        library = ctypes.CDLL(driver)
    except OSError:
        return Devices(reason=f"there is no NVIDIA driver on this machine ({driver} is not found)")
    try:
        return _ask(library)
    except (_DriverError, AttributeError) as error:
        return Devices(reason=f"the NVIDIA driver has no device: {error}")


def _ask(library: ctypes.CDLL) -> Devices:
    _call(library, "cuInit", ctypes.c_uint(0))
    version, count = ctypes.c_int(), ctypes.c_int()
    _call(library, "cuDriverGetVersion", ctypes.byref(version))
    _call(library, "cuDeviceGetCount", ctypes.byref(count))
    gpus = tuple(_gpu(library, index) for index in range(count.value))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Devices(gpus=gpus, driver_cuda=cuda, reason="" if gpus else "the driver lists no device")


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    _call(library, "cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
    name = ctypes.create_string_buffer(NAME_BYTES)
    _call(library, "cuDeviceGetName", name, ctypes.c_int(NAME_BYTES), device)
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    major, minor = (
        _attribute(library, device, which) for which in (CAPABILITY_MAJOR, CAPABILITY_MINOR)
    )
    return Gpu(
        index=index,
        name=name.value.decode("ascii", "replace"),
        capability=f"SM{major}{minor}",
        memory_mib=memory.value >> 20,
    )


def _attribute(library: ctypes.CDLL, device: ctypes.c_int, which: int) -> int:
    value = ctypes.c_int()
    _call(library, "cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(which), device)
    return value.value


def _call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = int(getattr(library, name)(*arguments))
    if code:
        text = ctypes.c_char_p()
        library.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
        words = text.value.decode("ascii", "replace") if text.value else "no words for it"
        raise _DriverError(f"{name}: {words} ({code})")
