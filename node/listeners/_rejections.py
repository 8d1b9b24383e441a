"""Why associations are rejected (PS3.8 table 9-21), and what is told of refused instances."""

from __future__ import annotations

import uuid
from typing import Final

import structlog

from node.interfaces import CannotUnderstand, IngestError

APPLICATION_CONTEXT_UNKNOWN: Final = (1, 1, 2)
CALLING_AE_UNKNOWN: Final = (1, 1, 3)
CALLED_AE_UNKNOWN: Final = (1, 1, 7)
NO_USER_IDENTITY: Final = (2, 2, 1)
CONGESTED: Final = (2, 3, 1)
LOCAL_LIMIT: Final = (2, 3, 2)
REASONS: Final = {
    APPLICATION_CONTEXT_UNKNOWN: "its application context is not DICOM's",
    CALLING_AE_UNKNOWN: "calling AE title, with its address and the names in its certificate, is "
    "not among listeners.dimse.peers",
    CALLED_AE_UNKNOWN: "called AE title is not among listeners.dimse.ae_titles",
    NO_USER_IDENTITY: "it shows no user identity, and listeners.dimse.users asks for one",
    CONGESTED: "what it would send could not be kept just now",
    LOCAL_LIMIT: "no association is free, in all or for its address, but for urgent senders "
    "(listeners.dimse)",
}
NOBODY: Final = (
    "listeners.dimse.peers: is empty, so no sender could connect; list the calling AE "
    "titles, or set allow_any_peer = true for a demonstration"
)

log = structlog.get_logger()


def refused(error: IngestError) -> None:
    """Log an instance that was answered with an error."""
    log.warning("instance.refused", status=f"0x{error.status:04X}", reason=str(error))


def incident(error: Exception) -> IngestError:
    """Log an error that nobody expected; the sender is told where to look for it."""
    incident = uuid.uuid4().hex[:8]
    log.error("instance.failed", incident=incident, error=type(error).__name__)
    return CannotUnderstand(f"internal error, incident {incident}")
