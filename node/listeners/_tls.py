"""TLS of the DICOM port: its certificates, read again when they change, and who a peer is by them.

TLS 1.2 with ECDHE and AEAD, and 1.3 (PS3.15 B.12, RFC 9325 4.2).
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import structlog

from node.interfaces import ListenerError
from node.listeners._dimse_settings import TlsSettings

TLS_CIPHERS: Final = "ECDHE+AESGCM"
"""TLS 1.2 suites of RFC 9325 4.2; TLS 1.3 has its own."""
ALTERNATIVE_NAMES: Final = ("DNS", "IP Address")

log = structlog.get_logger()


class ServerContext:
    """The context that handshakes take, made anew when one of its files changes."""

    def __init__(self, settings: TlsSettings) -> None:
        """Read the files.

        Raises:
            ListenerError: one of them cannot be read, or is not what it should be.
        """
        self._settings = settings
        self._lock = threading.Lock()
        self._seen = self._state()
        self._context = self._made()

    def current(self) -> ssl.SSLContext:
        """Return the context for the next connection; files that cannot be read change nothing."""
        with self._lock:
            state = self._state()
            if state != self._seen:
                self._seen = state
                try:
                    self._context = self._made()
                    log.info("tls.read_again")
                except ListenerError as error:
                    log.error("tls.not_read_again", error=str(error))
            return self._context

    def _files(self) -> tuple[Path, ...]:
        tls = self._settings
        files = (tls.certificate, tls.key, tls.authorities)
        return files if tls.revocations is None else (*files, tls.revocations)

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_state_of(path) for path in self._files())

    def _made(self) -> ssl.SSLContext:
        tls = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(TLS_CIPHERS)
        try:
            context.load_cert_chain(tls.certificate, tls.key)
            context.load_verify_locations(tls.authorities)
            if tls.revocations is not None:
                context.load_verify_locations(tls.revocations)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        except (OSError, ssl.SSLError) as error:
            raise ListenerError(
                "listeners.dimse.tls: a certificate, key, authority or revocation list cannot be"
                f" read: {error}"
            ) from error
        needed = tls.require_client_certificate
        context.verify_mode = ssl.CERT_REQUIRED if needed else ssl.CERT_OPTIONAL
        return context


def certificate_names(connection: object) -> frozenset[str]:
    """Return what the verified certificate of a peer calls it: common name, DNS names, addresses.

    Empty without TLS, and without a certificate.
    """
    if not isinstance(connection, ssl.SSLSocket):
        return frozenset()
    certificate = cast("Mapping[str, tuple[tuple[tuple[str, str], ...], ...]]",
                       connection.getpeercert() or {})  # fmt: skip
    names = {
        value
        for relative_name in certificate.get("subject", ())
        for kind, value in relative_name
        if kind == "commonName"
    }
    alternatives = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    return frozenset(names | {value for kind, value in alternatives if kind in ALTERNATIVE_NAMES})


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
