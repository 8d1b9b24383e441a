"""What colours mean: the ICC profile of sRGB, the same bytes at every call (PS3.3 C.11.15)."""

from __future__ import annotations

from typing import Final

from PIL import ImageCms

_MADE: Final = slice(24, 36)
_CLASS: Final = slice(12, 16)
_INPUT_DEVICE: Final = b"scnr"
_A_DAY: Final = bytes.fromhex("07d000010001000000000000")  # 2000-01-01 00:00:00 (ICC.1 4.2)


def icc_profile() -> bytes:
    """Return sRGB as the profile of an input device, as images in colours carry it.

    The library writes the time of day into it; here it is a fixed one (invariant 13).
    """
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_MADE] = _A_DAY
    profile[_CLASS] = _INPUT_DEVICE
    return bytes(profile)
