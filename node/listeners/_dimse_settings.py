"""[listeners.dimse]: who may connect, and what a sender may cost."""

from __future__ import annotations

from pathlib import Path

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from node.interfaces import PluginSettings


class Peer(BaseModel):
    """One sender that may connect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ae_title: str = Field(min_length=1, max_length=16, description="Its calling AE title.")
    addresses: tuple[str, ...] = Field((), description="IP addresses it may come from; empty: any.")
    certificate_names: tuple[str, ...] = Field(
        (),
        description="Common name, DNS name or address in its certificate (TLS), one of which must "
        "be there for it to call as this AE title; empty: any.",
    )
    urgent: bool = Field(
        False,
        description="It gets in, and is taken from, where associations or disk are short for "
        "others.",
    )


class User(BaseModel):
    """One user identity that a sender may show (PS3.7 D.3.3.7), types 1 and 2; over TLS only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="The user name.")
    passcode_file: Path | None = Field(
        None, description="File with its passcode; without it a passcode is not asked for."
    )


class TlsSettings(BaseModel):
    """[listeners.dimse.tls]: TLS 1.2 and 1.3 only, both sides with a certificate (PS3.15 B.12)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path = Field(description="PEM file with this node's certificate and its chain.")
    key: Path = Field(description="PEM file with its private key.")
    authorities: Path = Field(description="PEM file with the authorities that vouch for senders.")
    revocations: Path | None = Field(
        None,
        description="PEM file with the authorities' revocation lists, one for each authority of a "
        "sender's chain; a sender is refused if a certificate of its chain is on one, and if one "
        "is missing or has expired. Without it: no check.",
    )
    require_client_certificate: bool = Field(
        True, description="Refuse senders without a certificate."
    )


class DimseListenerSettings(PluginSettings):
    """[listeners.dimse]: C-STORE and C-ECHO."""

    ae_titles: tuple[str, ...] = Field(
        ("WETREAD",), min_length=1, description="Called AE titles this node answers to."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(11112, ge=0, le=65535, description="Port; 0 takes a free one.")
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that take associations, with PostgreSQL only: each writes packs and "
        "index by itself. Limits on associations are those of all together, "
        "`notifications_per_minute` is counted in each. 1: the node's own process.",
    )
    peers: tuple[Peer, ...] = Field((), description="Senders that may connect.")
    allow_any_peer: bool = Field(
        False, description="Let any sender connect. For demonstrations on loopback only."
    )
    max_associations: PositiveInt = Field(50, description="Associations at a time.")
    urgent_associations: NonNegativeInt = Field(
        5, description="How many of them only senders marked `urgent` get, if there are any."
    )
    max_associations_per_address: PositiveInt = Field(
        25,
        description="Associations at a time from one IP address; senders marked `urgent` get "
        "`urgent_associations` more.",
    )
    notifications_per_minute: PositiveInt = Field(
        600,
        description="Procedure steps and availability notifications that one IP address may send "
        "in a minute, a long one counting for several; more is answered 0x0213.",
    )
    max_pdu: int = Field(
        131072, ge=4096, le=1 << 24, description="Largest PDU announced to senders, in bytes."
    )
    acse_seconds: PositiveFloat = Field(10.0, description="Time to negotiate, in seconds.")
    dimse_seconds: PositiveFloat = Field(
        300.0, description="Time between two messages of a sender, in seconds."
    )
    network_seconds: PositiveFloat = Field(
        120.0, description="Time without a byte until an association is aborted, in seconds."
    )
    pdu_seconds: PositiveFloat = Field(
        120.0,
        description="Time from the first byte of a PDU to its last; then the association is "
        "aborted.",
    )
    tls: TlsSettings | None = Field(None, description="Accept TLS only; without it: plain TCP.")
    users: tuple[User, ...] = Field(
        (),
        description="User identities; a sender that shows another or none is refused. Without any, "
        "names and passcodes are passed over. Kerberos, SAML and JWT are always refused.",
    )
    grace_seconds: PositiveFloat = Field(
        20.0, description="Time for associations in flight when the node stops, in seconds."
    )

    @field_validator("ae_titles")
    @classmethod
    def _titles_fit(cls, titles: tuple[str, ...]) -> tuple[str, ...]:
        for title in titles:
            if not 0 < len(title.strip()) <= 16:  # noqa: PLR2004 - PS3.5 table 6.2-1, AE
                raise ValueError(f"{title!r}: an AE title has 1 to 16 characters")
        return tuple(title.strip() for title in titles)

    @property
    def kept_for_urgent(self) -> int:
        """How many associations others do not get."""
        return self.urgent_associations if any(peer.urgent for peer in self.peers) else 0

    @model_validator(mode="after")
    def _some_are_left(self) -> DimseListenerSettings:
        if self.kept_for_urgent >= self.max_associations:
            raise ValueError("urgent_associations must be less than max_associations")
        return self

    @model_validator(mode="after")
    def _users_need_tls(self) -> DimseListenerSettings:
        if self.users and self.tls is None:
            raise ValueError("users: names and passcodes are taken over TLS only (table tls)")
        return self

    @model_validator(mode="after")
    def _certificates_can_be_seen(self) -> DimseListenerSettings:
        named = [peer.ae_title for peer in self.peers if peer.certificate_names]
        if named and self.tls is None:
            raise ValueError(
                f"peers: {named[0]} has certificate_names, but without a table tls nobody shows one"
            )
        return self
