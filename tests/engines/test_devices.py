from __future__ import annotations

from engines.devices import find_devices


def test_a_machine_without_the_driver_says_so() -> None:
    found = find_devices("libcuda-that-is-not-here.so.1")
    assert found.gpus == ()
    assert found.reason == (
        "there is no NVIDIA driver on this machine (libcuda-that-is-not-here.so.1 is not found)"
    )


def test_a_library_that_is_no_driver_is_no_device() -> None:
    found = find_devices("libc.so.6")
    assert found.gpus == ()
    assert found.reason.startswith("the NVIDIA driver has no device: ")


def test_what_is_found_here_is_devices_or_a_reason() -> None:
    found = find_devices()
    assert bool(found.gpus) != bool(found.reason)
