"""The settings of the read side of DICOMweb."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from node.interfaces import PluginSettings
from node.listeners._web_access import Door


class DicomwebSettings(Door, PluginSettings):
    """[dicomweb]: what this node holds, for viewers."""

    port: int = Field(8043, ge=0, le=65535, description="Port; 0 takes a free one.")
    origins: tuple[str, ...] = Field(
        (),
        description="Origins of viewers whose pages may ask from a browser, such as "
        "`https://viewer.example`; none: no page of another origin.",
    )
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="Its address for viewers, where a proxy stands before it, such as "
        "`https://viewer.example/dicom-web`; without it: the one that a viewer asked by.",
    )
    max_results: PositiveInt = Field(
        1000, le=10_000, description="Most matches of one search; a caller asks for the next."
    )
    processes: PositiveInt = Field(
        2, le=16, description="Processes that read metadata and frames: so many at a time."
    )
    memory_mib: PositiveInt = Field(
        2048, description="Address space of each of them, in MiB; more is refused to it."
    )
