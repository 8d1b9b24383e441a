"""Certificates, authorities and revocation lists, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Papers:
    """A certificate, its key, and the authority that signed it."""

    certificate: Path
    key: Path
    authority: Path


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def authority(folder: Path) -> Papers:
    """Make an authority that signs itself."""
    folder.mkdir(parents=True)
    key, certificate = folder / "ca.key", folder / "ca.pem"
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests",
            "-keyout", key, "-out", certificate)  # fmt: skip
    return Papers(certificate, key, certificate)


def issued(by: Papers, name: str, *, days: int = 2) -> Papers:
    """Let an authority sign a certificate for 127.0.0.1."""
    folder = by.key.parent
    key, request, certificate = (folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", request)  # fmt: skip
    openssl("x509", "-req", "-in", request, "-CA", by.certificate, "-CAkey", by.key,
            "-CAcreateserial", "-days", str(days), "-copy_extensions", "copy",
            "-out", certificate)  # fmt: skip
    return Papers(certificate, key, by.certificate)


def signing(by: Papers) -> tuple[str | Path, ...]:
    """Return the options of `openssl ca` for an authority, whose books are beside its key."""
    folder = by.key.parent
    settings, index, number = (folder / name for name in ("ca.conf", "index.txt", "crlnumber"))
    settings.write_text(
        f"[ca]\ndefault_ca = own\n[own]\ndatabase = {index}\ncrlnumber = {number}\n"
        f"new_certs_dir = {folder}\nrand_serial = yes\npolicy = any\ndefault_md = sha256\n"
        "copy_extensions = copy\n[any]\ncommonName = supplied\n"
    )
    index.touch()
    if not number.exists():
        number.write_text("01\n")
    return ("-config", settings, "-keyfile", by.key, "-cert", by.certificate)


def revocation_list(by: Papers, *revoked: Papers, seconds: int = 86400) -> Path:
    """Let an authority revoke certificates; return its list, which also is in force without any."""
    folder = by.key.parent
    for papers in revoked:
        openssl("ca", *signing(by), "-revoke", papers.certificate)
    made, found = folder / "crl.new", folder / "crl.pem"
    openssl("ca", *signing(by), "-gencrl", "-crlsec", str(seconds), "-out", made)
    made.replace(found)
    return found


def issued_for_later(by: Papers, name: str) -> Papers:
    """Let an authority sign a certificate that is not valid before the end of the century."""
    early = issued(by, name)
    openssl("ca", *signing(by), "-batch", "-notext", "-startdate", "20980101000000Z", "-enddate",
            "20990101000000Z", "-in", early.key.with_suffix(".csr"),
            "-out", early.certificate)  # fmt: skip
    return early


def intermediate(by: Papers) -> Papers:
    """Let an authority vouch for another one."""
    folder = by.key.parent / "department"
    folder.mkdir()
    key, request, certificate = (folder / f"ca.{kind}" for kind in ("key", "csr", "pem"))
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=department", "-addext",
            "basicConstraints=critical,CA:TRUE", "-keyout", key, "-out", request)  # fmt: skip
    openssl("x509", "-req", "-in", request, "-CA", by.certificate, "-CAkey", by.key,
            "-CAcreateserial", "-days", "2", "-copy_extensions", "copy",
            "-out", certificate)  # fmt: skip
    return Papers(certificate, key, by.certificate)
