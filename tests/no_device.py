"""What is told of machines without an NVIDIA device is tested on such machines only."""

from __future__ import annotations

from typing import Final

import pytest

from engines.devices import find_devices

without_a_device: Final = pytest.mark.skipif(
    bool(find_devices().gpus), reason="NOT RUN: this machine has an NVIDIA device"
)
