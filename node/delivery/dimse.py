"""C-STORE to a PACS: one association for many objects (R52), the status byte decides (R48).

Objects are sent as they are kept (R53), each in a context of its own transfer syntax. One that is
Implicit or Explicit VR Little Endian is offered in the other of the two as well, in a second
context, so that the destination cannot choose the other while it takes the object as it is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from pydantic import Field, PositiveFloat
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.delivery._connection import (
    AssociationError,
    ConnectError,
    OutOfTimeError,
    RejectedError,
    ReleasedError,
)
from node.delivery._part10 import (
    NOT_NAMED,
    KeptFile,
    Transcoded,
    UnreadableError,
    is_named,
    name_of,
    wrong_in,
)
from node.delivery._statuses import judge
from node.delivery._store_scu import Peer, StoreAssociation
from node.delivery._upper_layer import Context
from node.interfaces import (
    DeliveryTarget,
    Negotiated,
    Offer,
    Outgoing,
    PluginSettings,
    ReportSent,
    SendVerdict,
    Sent,
)

MOST_CONTEXTS: Final = 128  # PS3.8 9.3.2.2: odd ids from 1 to 255
VERIFICATION: Final = "1.2.840.10008.1.1"
SUCCESS: Final = 0x0000
OTHER: Final[Mapping[str, str]] = {
    str(ExplicitVRLittleEndian): str(ImplicitVRLittleEndian),
    str(ImplicitVRLittleEndian): str(ExplicitVRLittleEndian),
}
"""What an object can be transcoded to without touching a value (NET-05)."""

REJECTIONS: Final[Mapping[tuple[int, int, int], str]] = {
    (1, 1, 3): "it does not know our calling AE title",
    (1, 1, 7): "it does not have this called AE title",
    (2, 3, 1): "it is congested for now",
    (2, 3, 2): "it has no association free for now",
}

CLASS_REFUSED: Final = 3  # PS3.8 table 9-18
SYNTAX_REFUSED: Final = 4
AE_TITLE: Final = r"^ *[!-\[\]-~][ -\[\]-~]*$"  # PS3.5 6.2, AE: no backslash, not spaces only


class DimseTargetSettings(PluginSettings):
    """[destinations.NAME] with kind = "dimse"."""

    host: str = Field(description="Its address.")
    port: int = Field(104, ge=1, le=65535, description="Its port.")
    ae_title: str = Field(
        min_length=1, max_length=16, pattern=AE_TITLE, description="Its (called) AE title."
    )
    calling_ae_title: str = Field(
        "WETREAD",
        min_length=1,
        max_length=16,
        pattern=AE_TITLE,
        description="Our AE title towards it.",
    )
    connect_seconds: PositiveFloat = Field(10.0, description="Time to connect, in seconds.")
    acse_seconds: PositiveFloat = Field(30.0, description="Time to negotiate, in seconds.")
    dimse_seconds: PositiveFloat = Field(
        120.0,
        description="Time to answer one object, or to take a next byte of it, in seconds.",
    )
    total_seconds: PositiveFloat = Field(
        240.0,
        description="Time for all objects that are sent at once, in seconds; less than "
        "`delivery.lease_seconds`, or an object may be sent twice.",
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
        """Send objects in order, as they are; report each answer as it comes.

        One association takes them all, unless they need more than 128 contexts.
        """
        until = time.monotonic() + self._settings.total_seconds
        for group, contexts in _groups(objects):
            self._send_group(deque(group), contexts, until, report)

    def probe(self) -> Sent:
        """Ask by C-ECHO; the message names the step that failed."""
        until = time.monotonic() + self._settings.total_seconds
        context = Context(VERIFICATION, str(ImplicitVRLittleEndian))
        try:
            with StoreAssociation(self._peer(), [context], until) as association:
                if association.refusal(context) is not None:
                    return Sent(verdict=SendVerdict.UNREACHABLE, message="C-ECHO: not accepted")
                status = association.echo(context)
        except ConnectError as error:
            return Sent(verdict=SendVerdict.UNREACHABLE, message=str(error))
        except RejectedError as error:
            return self._no_association(error)
        except AssociationError as error:
            return Sent(verdict=SendVerdict.UNREACHABLE, message=f"C-ECHO: {error}")
        if status == SUCCESS:
            return Sent(verdict=SendVerdict.ACCEPTED, status=SUCCESS)
        return Sent(verdict=SendVerdict.UNREACHABLE, status=status, message="C-ECHO: refused")

    def negotiate(self, offers: Sequence[Offer]) -> Negotiated:
        """Propose each offer in a context of its own; whatever is accepted, nothing is sent."""
        until = time.monotonic() + self._settings.total_seconds
        answers: dict[Offer, tuple[Context, int | None]] = {}
        always = Context(VERIFICATION, str(ImplicitVRLittleEndian))  # some reject an empty-handed
        problem = ""
        for start in range(0, len(offers), MOST_CONTEXTS - 1):
            asked = offers[start : start + MOST_CONTEXTS - 1]
            contexts = [Context(item.sop_class_uid, item.transfer_syntax_uid) for item in asked]
            try:
                with StoreAssociation(self._peer(), [always, *contexts], until) as association:
                    for offer, context in zip(asked, contexts, strict=True):
                        answers[offer] = (context, association.refusal(context))
            except AssociationError as error:
                problem = self._no_association(error).message
                break
        return Negotiated(
            accepted=frozenset(offer for offer, (_, result) in answers.items() if result is None),
            refused={
                offer: _why_refused(context, result)
                for offer, (context, result) in answers.items()
                if result is not None
            },
            problem=problem,
        )

    def _peer(self) -> Peer:
        settings = self._settings
        return Peer(
            host=settings.host,
            port=settings.port,
            called=settings.ae_title,
            calling=settings.calling_ae_title,
            connect_seconds=settings.connect_seconds,
            acse_seconds=settings.acse_seconds,
            dimse_seconds=settings.dimse_seconds,
        )

    def _send_group(
        self,
        waiting: deque[tuple[int, Outgoing]],
        contexts: Sequence[Context],
        until: float,
        report: ReportSent,
    ) -> None:
        """Send objects over one association; each gets its report, whatever the peer does."""
        ended = NO_CONTEXT  # for a group of objects that cannot even be proposed
        if contexts:
            try:
                association = StoreAssociation(self._peer(), contexts, until)
            except AssociationError as error:
                ended = self._no_association(error)
            else:
                ended = self._send_over(association, waiting, report)
        while waiting:
            report(waiting.popleft()[0], ended)

    def _send_over(
        self,
        association: StoreAssociation,
        waiting: deque[tuple[int, Outgoing]],
        report: ReportSent,
    ) -> Sent:
        """Send while the association stands; return what became of the objects still waiting."""
        in_flight = False
        try:
            with association:
                while waiting:
                    association.look()
                    in_flight = True
                    sent = _send_one(association, waiting[0][1])
                    in_flight = False
                    report(waiting.popleft()[0], sent)
        except UnreadableError as error:  # midway: only an abort ends the message
            report(waiting.popleft()[0], _refused(str(error)))
        except AssociationError as error:
            if in_flight:
                report(waiting.popleft()[0], _unanswered(error))
            return Sent(verdict=SendVerdict.RETRY, message=f"not sent: {error}", begun=False)
        return Sent(
            verdict=SendVerdict.RETRY,
            message="not sent: the association ended before this one",
            begun=False,
        )

    def _no_association(self, error: AssociationError) -> Sent:
        """Say why there is no association. Whatever the reason, the destination is not usable."""
        settings = self._settings
        if isinstance(error, RejectedError):
            reason = REJECTIONS.get(error.key, str(error))
            titles = f"called {settings.ae_title}, calling {settings.calling_ae_title}"
            message = f"the association was rejected: {reason} ({titles})"
        else:
            message = f"no association with {settings.host}:{settings.port}: {error}"
        return Sent(verdict=SendVerdict.UNREACHABLE, message=message, may_be_there=False)


def _send_one(association: StoreAssociation, item: Outgoing) -> Sent:
    """Send one object as it is kept, or transcoded where the destination takes only that.

    Raises:
        AssociationError: the association ended before the answer.
        UnreadableError: the file failed when part of it was sent.
    """
    try:
        kept = KeptFile(item.path)
    except UnreadableError as error:
        return _refused(str(error))
    with kept:
        wrong = wrong_in(kept, item)
        if wrong:
            return _refused(wrong)
        own = Context(item.sop_class_uid, item.transfer_syntax_uid)
        refusal = association.refusal(own)
        if refusal is None:
            return judge(association.store(own, item.sop_instance_uid, kept))
    syntax = OTHER.get(own.transfer_syntax, "")
    other = Context(item.sop_class_uid, syntax)
    if not syntax or association.refusal(other) is not None:
        return _refused(_why_refused(own, refusal))
    try:
        transcoded = Transcoded(item.path, syntax)
    except UnreadableError as error:
        return _refused(f"{_why_refused(own, refusal)}; {error}")
    sent = judge(association.store(other, item.sop_instance_uid, transcoded))
    recorded = f"sent as {name_of(syntax)}: {_why_refused(own, refusal)}"
    return replace(sent, message=f"{sent.message}; {recorded}" if sent.message else recorded)


def _why_refused(context: Context, result: int | None) -> str:
    """Word the answer to a presentation context (PS3.8 table 9-18)."""
    uid, syntax = context.abstract_syntax, name_of(context.transfer_syntax)
    if result == CLASS_REFUSED:
        return f"the destination takes no SOP class {uid}"
    if result == SYNTAX_REFUSED:
        return f"the destination takes SOP class {uid}, but not as {syntax}"
    return f"the destination did not accept SOP class {uid} as {syntax}"


def _refused(message: str) -> Sent:
    return Sent(verdict=SendVerdict.REFUSED, message=message)


NO_CONTEXT: Final = _refused(NOT_NAMED)


def _unanswered(error: AssociationError) -> Sent:
    """Judge the object that was on its way when the association ended."""
    message = f"no answer: {error}"
    if isinstance(error, ReleasedError | OutOfTimeError):  # the destination is alive
        return Sent(verdict=SendVerdict.RETRY, message=message, cut_short=True)
    return replace(judge(None), message=message, cut_short=True)


def _groups(
    objects: Sequence[Outgoing],
) -> Iterator[tuple[list[tuple[int, Outgoing]], list[Context]]]:
    """Cut objects, in order, into groups whose contexts fit into one association each."""
    group: list[tuple[int, Outgoing]] = []
    contexts: dict[Context, None] = {}
    for index, item in enumerate(objects):
        wanted = dict.fromkeys(_contexts(item))
        if len(contexts | wanted) > MOST_CONTEXTS:
            yield group, list(contexts)
            group, contexts = [], {}
        group.append((index, item))
        contexts |= wanted
    if group:
        yield group, list(contexts)


def _contexts(item: Outgoing) -> Iterator[Context]:
    """Yield what to propose for an object: its own transfer syntax, and the other plain one."""
    if is_named(item):
        own = item.transfer_syntax_uid
        yield Context(item.sop_class_uid, own)
        if own in OTHER:
            yield Context(item.sop_class_uid, OTHER[own])
