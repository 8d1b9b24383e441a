"""Who may use a door on the web: names with passwords or tokens, and TLS."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

TLS_CIPHERS: Final = "ECDHE+AESGCM"
"""TLS 1.2 suites of RFC 9325 4.2; TLS 1.3 has its own."""
ANYBODY: Final = ""

log = structlog.get_logger()


class WebAccessError(Exception):
    """A certificate, key or authority cannot be used; the message names what is wrong."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WebUser(_Table):
    """Somebody who may come in."""

    name: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[^:\x00-\x1f\x7f]+$",
        description="Name; it stands in the log.",
    )
    password_file: Path | None = Field(
        None, description="File with the password (HTTP Basic), read at each request."
    )
    token_file: Path | None = Field(
        None, description="File with a bearer token, read at each request."
    )

    @model_validator(mode="after")
    def _has_a_secret(self) -> Self:
        if (self.password_file is None) == (self.token_file is None):
            raise ValueError("either password_file or token_file is needed")
        _hold_absolute(self.password_file, self.token_file)
        return self


class WebTls(_Table):
    """How the door is locked."""

    certificate: Path = Field(description="PEM file with this node's certificate and its chain.")
    key: Path = Field(description="PEM file with its private key.")
    authorities: Path | None = Field(
        None,
        description="PEM file with the authorities that vouch for callers; with it a certificate "
        "is asked of each, without it of none.",
    )

    @model_validator(mode="after")
    def _are_absolute(self) -> Self:
        _hold_absolute(self.certificate, self.key, self.authorities)
        return self

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            WebAccessError
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(TLS_CIPHERS)
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.authorities is not None:
                context.load_verify_locations(self.authorities)
                context.verify_mode = ssl.CERT_REQUIRED
        except OSError as error:  # ssl.SSLError is one
            raise WebAccessError(
                f"tls: a certificate, key or authority cannot be read: {error}"
            ) from error
        return context


class Door(BaseModel):
    """Where a door on the web is, and who may come in."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(ge=0, le=65535, description="Port; 0 takes a free one.")
    users: tuple[WebUser, ...] = Field(
        (),
        description="Who may come in. Without any: anybody, on loopback only.",
    )
    tls: WebTls | None = Field(None, description="TLS; without it plain HTTP, on loopback only.")

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, host: str) -> str:
        ipaddress.ip_address(host)
        return host

    @model_validator(mode="after")
    def _is_locked(self) -> Self:
        if ipaddress.ip_address(self.host).is_loopback:
            return self
        if self.tls is None:
            raise ValueError("tls is needed to listen on another address than loopback")
        if not self.users and self.tls.authorities is None:
            raise ValueError("users, or tls.authorities, are needed beyond loopback")
        return self


def user_of(authorization: str, users: Sequence[WebUser]) -> str | None:
    """Return whose credentials an Authorization header holds; None: nobody's.

    Every user is compared with, so that the time tells nobody which names there are.
    """
    if not users:
        return ANYBODY
    scheme, _, value = authorization.partition(" ")
    name, secret = _credentials(scheme.lower(), value.strip())
    found = None
    for user in users:
        file = user.token_file if scheme.lower() == "bearer" else user.password_file
        same_name = scheme.lower() == "bearer" or hmac.compare_digest(name, user.name.encode())
        if file is not None and _is_secret(secret, file) and same_name:
            found = user.name
    return found


def _credentials(scheme: str, value: str) -> tuple[bytes, bytes]:
    if scheme == "bearer":
        return b"", value.encode("utf-8", "replace")
    if scheme != "basic":
        return b"", b""
    try:
        name, _, password = base64.b64decode(value, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return b"", b""
    return name, password


def _is_secret(given: bytes, file: Path) -> bool:
    try:
        wanted = file.read_bytes().strip()
    except OSError as error:
        log.error("web_access.no_secret", file=str(file), error=error.strerror)
        return False
    return bool(wanted) and hmac.compare_digest(given, wanted)


def _hold_absolute(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and not path.is_absolute():
            raise ValueError(f"{path}: must be an absolute path")
