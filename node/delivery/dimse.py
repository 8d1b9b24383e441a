"""C-STORE to a PACS: one association for many objects (R52), the status byte decides (R48)."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import structlog
from pydantic import Field, PositiveFloat
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config
from pynetdicom.association import Association

from node.interfaces import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    DeliveryTarget,
    Outgoing,
    PluginSettings,
    ReportSent,
    SendVerdict,
    Sent,
)

MOST_CONTEXTS: Final = 128  # PS3.8 9.3.2.2: odd ids from 1 to 255
VERIFICATION: Final = "1.2.840.10008.1.1"
SUCCESS: Final = 0x0000
UNCOMPRESSED: Final = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))

# What a C-STORE response means to the outbox (PS3.4 table B.2-1, PS3.7 annex C).
EXACT: Final[Mapping[int, tuple[SendVerdict, str]]] = {
    0x0000: (SendVerdict.ACCEPTED, ""),
    0x0110: (SendVerdict.RETRY, "processing failure"),
    0x0112: (SendVerdict.REFUSED, "no such object instance"),
    0x0117: (SendVerdict.REFUSED, "invalid SOP Instance UID"),
    0x0122: (SendVerdict.REFUSED, "SOP class not supported"),
    0x0124: (SendVerdict.REFUSED, "not authorised"),
    0x0210: (SendVerdict.RETRY, "duplicate invocation"),
    0x0211: (SendVerdict.REFUSED, "unrecognised operation"),
    0x0212: (SendVerdict.REFUSED, "mistyped argument"),
    0x0213: (SendVerdict.RETRY, "resource limitation"),
}
BY_GROUP: Final[Mapping[int, tuple[SendVerdict, str]]] = {
    0xA7: (SendVerdict.RETRY, "out of resources"),
    0xA8: (SendVerdict.REFUSED, "refused"),
    0xA9: (SendVerdict.REFUSED, "data set does not match SOP class"),
    0xB0: (SendVerdict.WARNED, "kept, with a warning"),
}
BY_CLASS: Final[Mapping[int, tuple[SendVerdict, str]]] = {
    0xB: (SendVerdict.WARNED, "kept, with a warning"),
    0xC: (SendVerdict.REFUSED, "cannot understand"),
}
REJECTED_PERMANENT: Final = 1
REJECTIONS: Final[Mapping[tuple[int, int, int], str]] = {
    (1, 1, 3): "it does not know our calling AE title",
    (1, 1, 7): "it does not have this called AE title",
    (2, 3, 1): "it is congested for now",
    (2, 3, 2): "it has no association free for now",
}

log = structlog.get_logger()


class DimseTargetSettings(PluginSettings):
    """[destinations.NAME] with kind = "dimse"."""

    host: str = Field(description="Its address.")
    port: int = Field(104, ge=1, le=65535, description="Its port.")
    ae_title: str = Field(min_length=1, max_length=16, description="Its (called) AE title.")
    calling_ae_title: str = Field(
        "WETREAD", min_length=1, max_length=16, description="Our AE title towards it."
    )
    connect_seconds: PositiveFloat = Field(10.0, description="Time to connect, in seconds.")
    acse_seconds: PositiveFloat = Field(30.0, description="Time to negotiate, in seconds.")
    dimse_seconds: PositiveFloat = Field(
        120.0, description="Time to answer one object, in seconds."
    )


class DimseTarget(DeliveryTarget[DimseTargetSettings]):
    """A storage SCU."""

    name: ClassVar[str] = "dimse"
    settings_type: ClassVar[type[PluginSettings]] = DimseTargetSettings

    def __init__(self, settings: DimseTargetSettings) -> None:
        self._settings = settings

    def address(self) -> str:
        """Say where results go."""
        settings = self._settings
        return f"dicom://{settings.ae_title}@{settings.host}:{settings.port}"

    def send(self, objects: Sequence[Outgoing], report: ReportSent) -> None:
        """Send objects over one association, as they are; report each answer as it comes."""
        ae = self._entity()
        for sop_class, transfer_syntax in _contexts(objects)[:MOST_CONTEXTS]:
            ae.add_requested_context(sop_class, list(transfer_syntax))
        association = self._associate(ae)
        if not association.is_established:
            verdict = self._why_not(association)
            for index in range(len(objects)):
                report(index, verdict)
            return
        try:
            for index, item in enumerate(objects):
                report(index, self._send_one(association, item))
        finally:
            if association.is_established:
                association.release()

    def probe(self) -> Sent:
        """Ask by C-ECHO; the message names the step that failed."""
        try:
            with socket.create_connection(
                (self._settings.host, self._settings.port), self._settings.connect_seconds
            ):
                pass
        except OSError as error:
            return Sent(verdict=SendVerdict.UNREACHABLE, message=f"TCP: {error.strerror or error}")
        ae = self._entity()
        ae.add_requested_context(VERIFICATION)
        association = self._associate(ae)
        if not association.is_established:
            return self._why_not(association)
        try:
            answer = association.send_c_echo()
        except (RuntimeError, ValueError) as error:
            return Sent(verdict=SendVerdict.UNREACHABLE, message=f"C-ECHO: {error}")
        finally:
            if association.is_established:
                association.release()
        status = answer.get("Status")
        if status == SUCCESS:
            return Sent(verdict=SendVerdict.ACCEPTED, status=SUCCESS)
        return Sent(verdict=SendVerdict.UNREACHABLE, status=status, message="C-ECHO: not answered")

    def _entity(self) -> AE:
        settings = self._settings
        _config.LOG_HANDLER_LEVEL = "none"
        ae = AE(ae_title=settings.calling_ae_title)
        ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.connection_timeout = settings.connect_seconds
        ae.acse_timeout = settings.acse_seconds
        ae.dimse_timeout = settings.dimse_seconds
        ae.network_timeout = settings.dimse_seconds
        ae.maximum_pdu_size = 0
        return ae

    def _associate(self, ae: AE) -> Association:
        settings = self._settings
        return ae.associate(settings.host, settings.port, ae_title=settings.ae_title)

    def _why_not(self, association: Association) -> Sent:
        """Say why there is no association. Whatever the reason, the destination is not usable."""
        settings = self._settings
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None:
            key = (answer.result or 0, answer.result_source or 0, answer.diagnostic or 0)
            reason = REJECTIONS.get(key, f"result, source, reason {key}")
            titles = f"called {settings.ae_title}, calling {settings.calling_ae_title}"
            return Sent(
                verdict=SendVerdict.UNREACHABLE,
                message=f"the association was rejected: {reason} ({titles})",
            )
        return Sent(
            verdict=SendVerdict.UNREACHABLE,
            message=f"no association with {settings.host}:{settings.port}: it does not answer",
        )

    def _send_one(self, association: Association, item: Outgoing) -> Sent:
        if not association.is_established:
            return Sent(verdict=SendVerdict.RETRY, message="the association ended before this one")
        try:
            dataset = dcmread(item.path)
            answer = association.send_c_store(dataset)
        except (InvalidDicomError, OSError) as error:
            return Sent(
                verdict=SendVerdict.REFUSED,
                message=f"the file cannot be read: {type(error).__name__}",
            )
        except ValueError:
            return Sent(
                verdict=SendVerdict.REFUSED,
                message=f"the destination takes no {item.sop_class_uid} in a transfer syntax "
                "that it was offered",
            )
        except (RuntimeError, AttributeError) as error:
            return Sent(verdict=SendVerdict.RETRY, message=type(error).__name__)
        return judge(answer.get("Status"))


def judge(status: int | None) -> Sent:
    """Return what a C-STORE status means; None: no answer came."""
    if status is None:
        return Sent(
            verdict=SendVerdict.UNREACHABLE,
            message="no answer: the association was aborted or timed out",
        )
    unknown = (SendVerdict.REFUSED, "unknown status")
    verdict, meaning = EXACT.get(
        status, BY_GROUP.get(status >> 8, BY_CLASS.get(status >> 12, unknown))
    )
    return Sent(verdict=verdict, status=status, message=meaning)


def _contexts(objects: Sequence[Outgoing]) -> list[tuple[str, tuple[str, ...]]]:
    """Return what to propose: an object's own syntax; both plain ones for an uncompressed one."""
    pairs: dict[tuple[str, tuple[str, ...]], None] = {}
    for item in objects:
        own = item.transfer_syntax_uid
        syntaxes = UNCOMPRESSED if own in UNCOMPRESSED else (own,)
        pairs[item.sop_class_uid, syntaxes] = None
    return list(pairs)
