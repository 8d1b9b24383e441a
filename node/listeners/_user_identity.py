"""Who a sender says that its user is (PS3.7 D.3.3.7): a name, or a name with a passcode."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import structlog

from node.listeners._dimse_settings import User

NAME: Final = 1
NAME_AND_PASSCODE: Final = 2

log = structlog.get_logger()


class UserIdentity(Protocol):
    """What pynetdicom puts into the event of a user identity."""

    user_id_type: int
    primary_field: bytes
    secondary_field: bytes | None


def is_accepted(kind: int, name: bytes, passcode: bytes | None, users: Sequence[User]) -> bool:
    """Say whether a user identity is one of `users`; without any, names are passed over (NET-15).

    A file of a passcode is read each time, so that a new passcode needs no restart. Kerberos
    tickets, SAML assertions and JSON web tokens are never accepted: nobody here could check them.
    """
    if kind not in (NAME, NAME_AND_PASSCODE):
        return False
    if not users:
        return True
    return any(
        hmac.compare_digest(name, user.name.encode())
        and (user.passcode_file is None or _is_passcode(passcode, user.passcode_file))
        for user in users
    )


def _is_passcode(passcode: bytes | None, file: Path) -> bool:
    try:
        wanted = file.read_bytes().strip()
    except OSError as error:
        log.error("user_identity.no_passcode", file=str(file), error=error.strerror)
        return False
    return bool(wanted) and passcode is not None and hmac.compare_digest(passcode, wanted)
