"""WADO-RS: instances, metadata, frames, pictures, bulk data (PS3.18 10.4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Final

import structlog
from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from node.dicomweb.accept import ANY, MediaRange
from node.dicomweb.attributes import Json
from node.dicomweb.parameters import (
    UID_PATTERN,
    Accepted,
    ElementPath,
    FrameList,
    FrameNumber,
    Holdings,
    OwnAddress,
    Reading,
)
from node.dicomweb.queries import hold_json
from node.dicomweb.reader import GoneError, Picture, Reader
from node.dicomweb.replies import HEADERS, MEDIA_TYPES, Part, array, multipart, single
from storage.holdings import HeldInstance, HoldingStore

DICOM: Final = "application/dicom"
OCTETS: Final = "application/octet-stream"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
PICTURES: Final = ("image/png", "image/jpeg")
THUMBNAIL: Final = (128, 128)
LARGEST: Final = 8192
SERIES_PATH: Final = "/studies/{study}/series/{series}"
INSTANCE_PATH: Final = SERIES_PATH + "/instances/{instance}"
LEVELS: Final = ("/studies/{study}", SERIES_PATH, INSTANCE_PATH)
NUMBER: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?")

log = structlog.get_logger()


def add_routes(router: APIRouter) -> None:
    """Add the routes of this subject."""
    for path in LEVELS:
        router.add_api_route(path, retrieve, response_model=None)
        router.add_api_route(f"{path}/metadata", metadata, response_model=None)
    for path, what in (
        ("/frames/{numbers}", frames),
        ("/frames/{number}/rendered", rendered_frame),
        ("/rendered", rendered),
        ("/thumbnail", thumbnail),
        ("/bulkdata/{path:path}", bulkdata),
    ):
        route: Callable[..., Response] = what
        router.add_api_route(f"{INSTANCE_PATH}{path}", route, response_model=None)


# ---------------------------------------------------------------- whole instances


def retrieve(
    request: Request, holdings: Holdings, reader: Reading, address: OwnAddress, accepted: Accepted
) -> Response:
    """Give the DICOM files of a study, a series or an instance, as they were received or made."""
    held = _held(request, holdings)
    if not all(_takes_file(accepted, item) for item in held):
        raise HTTPException(
            HTTPStatus.NOT_ACCEPTABLE,
            "Files are given as they are kept, and some are in another transfer syntax.",
        )
    _tell(request, "instances", len(held))
    if len(held) == 1 and not any(entry.multipart for entry in accepted if entry.takes(DICOM)):
        size = reader.size(held[0])
        return single(reader.pieces(held[0]), DICOM, size)
    return multipart(_files(held, reader, address), DICOM)


def _files(held: Sequence[HeldInstance], reader: Reader, address: str) -> Iterator[Part]:
    for item in held:
        try:
            reader.size(item)
        except GoneError:  # retention was there between the look and now
            log.warning("dicomweb.instance_gone", sop_instance_uid=item.sop_instance_uid)
            continue
        yield Part(
            content_type=f"{DICOM}; transfer-syntax={item.transfer_syntax_uid}",
            pieces=reader.pieces(item),
            address=_address_of(item, address),
        )


def _takes_file(accepted: Sequence[MediaRange], held: HeldInstance) -> bool:
    """Say whether a file may go as it is; who names no transfer syntax takes it so."""
    return any(
        entry.takes(DICOM) and entry.transfer_syntax in {"", ANY, held.transfer_syntax_uid}
        for entry in accepted
    )


def metadata(
    request: Request, holdings: Holdings, reader: Reading, address: OwnAddress, accepted: Accepted
) -> Response:
    """Give all attributes of a study, a series or an instance; long values by their address."""
    hold_json(accepted)
    held = _held(request, holdings)
    _tell(request, "metadata", len(held))
    return array(_readable(held, reader, address))


def _readable(held: Sequence[HeldInstance], reader: Reader, address: str) -> Iterator[Json]:
    for item, found in zip(held, reader.metadata(held, address), strict=True):
        if found is None:
            log.warning("dicomweb.not_readable", sop_instance_uid=item.sop_instance_uid)
        else:
            yield found


# ---------------------------------------------------------------- parts of one


def frames(  # noqa: PLR0917 - what FastAPI hands over
    request: Request,
    numbers: FrameList,
    holdings: Holdings,
    reader: Reading,
    address: OwnAddress,
    accepted: Accepted,
) -> Response:
    """Give frames as they are kept where that is taken, else uncompressed."""
    held = _one(request, holdings)
    kept = MEDIA_TYPES.get(held.transfer_syntax_uid, OCTETS)
    as_kept = any(_takes_frame(entry, kept, held.transfer_syntax_uid) for entry in accepted)
    plain = any(entry.takes(OCTETS) for entry in accepted)
    if not as_kept and not plain:
        raise HTTPException(HTTPStatus.NOT_ACCEPTABLE, f"There is {OCTETS} only.")
    found = reader.frames(
        held, [int(number) for number in numbers.split(",")], [ANY] if as_kept else []
    )
    syntax = found.transfer_syntax_uid
    kind = OCTETS if syntax == EXPLICIT_LITTLE else kept
    _tell(request, "frames", len(found.frames))
    if len(found.frames) == 1 and not any(entry.multipart for entry in accepted):
        return single(found.frames[0], kind)
    parts = (
        Part(
            content_type=f"{kind}; transfer-syntax={syntax}",
            pieces=pieces,
            address=f"{_address_of(held, address)}/frames/{number}",
        )
        for number, pieces in zip(numbers.split(","), found.frames, strict=True)
    )
    return multipart(parts, kind)


def _takes_frame(entry: MediaRange, kind: str, syntax: str) -> bool:
    """Say whether a compressed frame may go as it is.

    Who asks for octets without a transfer syntax means uncompressed ones (PS3.18 8.7.3.3.2).
    """
    if entry.transfer_syntax in {ANY, syntax}:
        return entry.takes(kind) or entry.takes(OCTETS)
    return not entry.transfer_syntax and kind != OCTETS and entry.takes(kind)


def bulkdata(
    request: Request,
    path: ElementPath,
    holdings: Holdings,
    reader: Reading,
    accepted: Accepted,
) -> Response:
    """Give one long value of a data set; pixel data frame by frame, as it is kept."""
    held = _one(request, holdings)
    if not any(entry.takes(OCTETS) or entry.takes("image/*") for entry in accepted):
        raise HTTPException(HTTPStatus.NOT_ACCEPTABLE, f"There is {OCTETS} only.")
    _tell(request, "bulkdata", 1)
    if path.upper() != "7FE00010":
        pieces = reader.bulkdata(held, path)
        if any(entry.multipart for entry in accepted):
            return multipart(iter((Part(content_type=OCTETS, pieces=pieces),)), OCTETS)
        return single(pieces, OCTETS)
    found = reader.frames(held, (), [ANY])
    syntax = found.transfer_syntax_uid
    kind = OCTETS if syntax == EXPLICIT_LITTLE else MEDIA_TYPES.get(syntax, OCTETS)
    if kind == OCTETS:
        whole = (piece for frame in found.frames for piece in frame)
        return multipart(iter((Part(content_type=OCTETS, pieces=whole),)), OCTETS)
    content_type = f"{kind}; transfer-syntax={syntax}"
    parts = (Part(content_type=content_type, pieces=frame) for frame in found.frames)
    return multipart(parts, kind)


def rendered(request: Request, holdings: Holdings, reader: Reading, accepted: Accepted) -> Response:
    """Give the first frame as a picture."""
    return _picture(request, _one(request, holdings), reader, accepted, number=1)


def rendered_frame(
    request: Request, number: FrameNumber, holdings: Holdings, reader: Reading, accepted: Accepted
) -> Response:
    """Give a frame as a picture."""
    return _picture(request, _one(request, holdings), reader, accepted, number=number)


def thumbnail(
    request: Request, holdings: Holdings, reader: Reading, accepted: Accepted
) -> Response:
    """Give the first frame as a small picture."""
    return _picture(request, _one(request, holdings), reader, accepted, size=THUMBNAIL)


def _picture(
    request: Request,
    held: HeldInstance,
    reader: Reader,
    accepted: Sequence[MediaRange],
    *,
    number: int = 1,
    size: tuple[int, int] | None = None,
) -> Response:
    kind = next((kind for entry in accepted for kind in PICTURES if entry.takes(kind)), None)
    if kind is None:
        raise HTTPException(HTTPStatus.NOT_ACCEPTABLE, "There is image/png and image/jpeg only.")
    viewport = _numbers(request, "viewport", 2)
    if viewport is not None:
        size = (_side(viewport[0]), _side(viewport[1]))
    window = _numbers(request, "window", 2)
    picture = Picture(
        number=number,
        window=None if window is None else (window[0], max(1.0, window[1])),
        size=size,
        jpeg=kind == PICTURES[1],
    )
    _tell(request, "rendered", 1)
    return Response(reader.picture(held, picture), media_type=kind, headers=dict(HEADERS))


def _side(value: float) -> int:
    return max(1, min(LARGEST, int(value)))


def _numbers(request: Request, name: str, count: int) -> list[float] | None:
    """Return the first numbers of a parameter such as `window=40,400,linear`."""
    text = request.query_params.get(name)
    if text is None:
        return None
    found = text.split(",")[:count]
    if len(found) < count or not all(NUMBER.fullmatch(item.strip()) for item in found):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name} must hold {count} numbers.")
    return [float(item) for item in found]


# ---------------------------------------------------------------- what is meant


def _held(request: Request, holdings: HoldingStore) -> Sequence[HeldInstance]:
    """Return what the address names.

    Raises:
        HTTPException: it holds no UIDs; nothing of it is held.
    """
    names = [str(request.path_params.get(name, "")) for name in ("study", "series", "instance")]
    if not all(re.fullmatch(UID_PATTERN, name) for name in names if name):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The address holds something that is no UID.")
    found = holdings.instances(*names)
    if not found:
        raise HTTPException(HTTPStatus.NOT_FOUND, "It is not held here.")
    return found


def _one(request: Request, holdings: HoldingStore) -> HeldInstance:
    return _held(request, holdings)[0]


def _address_of(held: HeldInstance, address: str) -> str:
    return (
        f"{address}/studies/{held.study_instance_uid}/series/{held.series_instance_uid}"
        f"/instances/{held.sop_instance_uid}"
    )


def _tell(request: Request, what: str, count: int) -> None:
    """Say who was given what; of parts of an instance, which come by the hundred, on asking."""
    tell = log.info if what in {"instances", "metadata"} else log.debug
    tell(
        "dicomweb.given",
        user=request.state.user,
        what=what,
        count=count,
        study_instance_uid=request.path_params.get("study"),
    )
