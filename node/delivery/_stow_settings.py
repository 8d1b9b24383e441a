"""The settings of a destination over the web, and what is made of them: credentials and TLS."""

from __future__ import annotations

import base64
import ipaddress
import ssl
from pathlib import Path
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, PositiveFloat, field_validator, model_validator

from node.interfaces import PluginSettings

SCHEMES: Final = ("https", "http")


class AccessError(Exception):
    """A file with a secret or a certificate cannot be used; the message names the setting."""


class StowTargetSettings(PluginSettings):
    """[destinations.NAME] with kind = "stow"."""

    url: str = Field(
        description="Address of its DICOMweb service, such as `https://pacs.example/dicom-web`; "
        "objects are posted to `studies` below it."
    )
    token_file: Path | None = Field(
        None, description="File with a bearer token, read each time objects are sent."
    )
    user: str = Field("", pattern=r"^[^:\x00-\x1f\x7f]*$", description="User name.")
    password_file: Path | None = Field(
        None, description="File with the user's password, read each time objects are sent."
    )
    authorities: Path | None = Field(
        None,
        description="PEM file with the authorities that vouch for it; without it: those of the "
        "operating system.",
    )
    certificate: Path | None = Field(
        None, description="PEM file with this node's certificate and its chain, where it asks."
    )
    key: Path | None = Field(None, description="PEM file with the certificate's private key.")
    connect_seconds: PositiveFloat = Field(10.0, description="Time to connect, in seconds.")
    answer_seconds: PositiveFloat = Field(
        120.0,
        description="Time to answer one object, or to take a next byte of it, in seconds.",
    )
    total_seconds: PositiveFloat = Field(
        240.0,
        description="Time for all objects that are sent at once, in seconds; less than "
        "`delivery.lease_seconds`, or an object may be sent twice.",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = _parts(url)
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ValueError("must be an https:// or http:// address")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must have no user, password, query or fragment")
        address = _address(parts.hostname)
        if address is not None and (address.is_link_local or address.is_multicast):
            raise ValueError("must not be a link-local address, where machines keep their secrets")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _credentials_fit(self) -> Self:
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("user and password_file belong together")
        if self.token_file is not None and self.user:
            raise ValueError("token_file and user exclude each other")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        parts = _parts(self.url)
        if parts.scheme == "http":
            if self.authorities or self.certificate:
                raise ValueError("certificates are of no use without https://")
            if (self.token_file or self.user) and not _is_loopback(parts.hostname or ""):
                raise ValueError("credentials go over https:// only, beyond loopback")
        return self

    def authorization(self) -> dict[str, str]:
        """Return the header that says who we are, if any.

        Raises:
            AccessError
        """
        if self.token_file is not None:
            token = _secret(self.token_file, "token_file")
            if not token.isascii():
                raise AccessError("token_file: has other characters than ASCII")
            return {"Authorization": f"Bearer {token}"}
        if self.password_file is not None:
            pair = f"{self.user}:{_secret(self.password_file, 'password_file')}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        return {}

    def tls(self) -> ssl.SSLContext | bool:
        """Return the context for https; True where there is none to make.

        Raises:
            AccessError
        """
        if _parts(self.url).scheme == "http":
            return True
        try:
            context = ssl.create_default_context(cafile=self.authorities)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise AccessError(
                f"authorities, certificate or key cannot be read: {type(error).__name__}"
            ) from error
        return context


def _parts(url: str) -> SplitResult:
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError where it is none
    return parts


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _secret(path: Path, key: str) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"{key}: cannot be read: {type(error).__name__}") from error
    if not secret or not secret.isprintable():
        raise AccessError(f"{key}: is empty, or is no text on one line")
    return secret
