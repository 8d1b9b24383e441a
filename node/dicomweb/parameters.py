"""What the routes take from a request."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Path, Request

from node.dicomweb.accept import MediaRange, read_accept
from node.dicomweb.reader import Reader
from node.dicomweb.settings import DicomwebSettings
from storage.holdings import HoldingStore

PREFIX: Final = "/dicom-web"
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
UID_PATTERN: Final = r"^[0-9.]{1,64}$"

Uid: TypeAlias = Annotated[str, Path(pattern=UID_PATTERN)]
FrameList: TypeAlias = Annotated[str, Path(pattern=r"^[0-9]{1,9}(,[0-9]{1,9}){0,999}$")]
FrameNumber: TypeAlias = Annotated[int, Path(ge=1, lt=2**31)]
ElementPath: TypeAlias = Annotated[
    str, Path(pattern=r"^[0-9A-Fa-f]{8}(/[0-9]{1,6}/[0-9A-Fa-f]{8}){0,16}$")
]


def _holdings(request: Request) -> HoldingStore:
    found: HoldingStore = request.app.state.holdings
    return found


def _reader(request: Request) -> Reader:
    found: Reader = request.app.state.reader
    return found


def _settings(request: Request) -> DicomwebSettings:
    found: DicomwebSettings = request.app.state.settings
    return found


def _address(request: Request) -> str:
    """Return what the addresses of studies begin with, for the caller."""
    public = _settings(request).public_url
    if public:
        return public.rstrip("/")
    url = request.base_url
    own = request.scope.get("server")
    if url.port is None and own is not None and own[1] != DEFAULT_PORTS.get(url.scheme):
        url = url.replace(port=own[1])  # some clients leave the port out of Host
    return f"{str(url).rstrip('/')}{PREFIX}"


def _accepted(request: Request) -> list[MediaRange]:
    """Return what is accepted, by parameter or header (PS3.18 8.3.3.1)."""
    header = ",".join(request.headers.getlist("accept"))
    return read_accept(request.query_params.get("accept") or header)


Holdings: TypeAlias = Annotated[HoldingStore, Depends(_holdings)]
Reading: TypeAlias = Annotated[Reader, Depends(_reader)]
Configured: TypeAlias = Annotated[DicomwebSettings, Depends(_settings)]
OwnAddress: TypeAlias = Annotated[str, Depends(_address)]
Accepted: TypeAlias = Annotated[list[MediaRange], Depends(_accepted)]
