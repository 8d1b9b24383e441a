"""A network of one's own: nothing but a loopback interface, which nobody else can reach.

dcmtk's storescp and Orthanc listen on all addresses, whatever they are told. In a network namespace
of the bench's own that is the loopback interface alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET, namespaces(7)
NEW_USER: Final = 0x10000000  # CLONE_NEWUSER
SET_FLAGS: Final = 0x8914  # SIOCSIFFLAGS, netdevice(7)
UP: Final = 0x1  # IFF_UP


def enter_own_network() -> bool:
    """Move this process and those that it will start; say whether the system allowed it.

    It must have one thread only.
    """
    user, group = os.getuid(), os.getgid()
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(NEW_NETWORK) != 0:
        if unshare(NEW_USER | NEW_NETWORK) != 0:
            return False
        own = Path("/proc/self")
        (own / "setgroups").write_text("deny", encoding="ascii")
        (own / "uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        (own / "gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14x", b"lo", UP))
    return True
