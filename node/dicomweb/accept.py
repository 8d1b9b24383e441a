"""Which media types a caller takes (PS3.18 8.7): the Accept header, read within limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MOST_CHARACTERS: Final = 4096
ANY: Final = "*"
MULTIPART: Final = "multipart/related"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRange:
    """One entry: `kind` is the media type of a part where it is multipart."""

    kind: str
    multipart: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def transfer_syntax(self) -> str:
        """What its parts may be encoded in; empty: it does not say."""
        return self.parameters.get("transfer-syntax", "")

    def takes(self, kind: str) -> bool:
        """Say whether this media type fits."""
        major, _, _ = kind.partition("/")
        return self.kind in {kind, f"{major}/*", "*/*"}


def read_accept(text: str) -> list[MediaRange]:
    """Return what is accepted, in the order given; nothing said: anything."""
    ranges = [_range(part) for part in _split(text[:MOST_CHARACTERS], ",") if part.strip()]
    return ranges or [MediaRange(kind="*/*")]


def _range(text: str) -> MediaRange:
    kind, *rest = _split(text, ";")
    parameters: dict[str, str] = {}
    for item in rest:
        name, _, value = item.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"')
    kind = kind.strip().lower()
    if kind == MULTIPART:
        inner = parameters.get("type", "*/*").lower()
        return MediaRange(kind=inner, multipart=True, parameters=parameters)
    return MediaRange(kind=kind, parameters=parameters)


def _split(text: str, separator: str) -> list[str]:
    """Split outside of quotes."""
    parts, quoted = [""], False
    for character in text:
        quoted ^= character == '"'
        if character == separator and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts
