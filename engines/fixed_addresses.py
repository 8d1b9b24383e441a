"""Runs a module in this process begun anew, without random addresses where the system allows it.

A program of its own, run by its path: `fixed_addresses.py MODULE`. It imports nothing of ours, so
that what has to be imported is imported once.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

ADDR_NO_RANDOMIZE: Final = 0x0040000
ASK: Final = 0xFFFFFFFF
"""personality(2): ask, and change nothing."""


def main() -> None:
    """Become the module that is named."""
    personality = getattr(ctypes.CDLL(None), "personality", None)
    now = -1 if personality is None else int(personality(ctypes.c_ulong(ASK)))
    if personality is not None and now >= 0:
        personality(ctypes.c_ulong(now | ADDR_NO_RANDOMIZE))
    os.execv(sys.executable, [sys.executable, "-m", sys.argv[1]])  # noqa: S606 - ourselves again


if __name__ == "__main__":
    main()
