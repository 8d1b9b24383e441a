"""Images that results are drawn on, read from files. Sandbox only: this parses untrusted bytes."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.dataset import Dataset

from engines.datasets import READ_ERRORS, kind_of, quiet, read_dataset
from engines.images import InstanceFile, SourceFrame
from engines.presentation import displayed, frame_attributes
from engines.refusals import SeriesRefusedError
from node.interfaces import PictureError, Rgb, SourceImages


class FileImages(SourceImages):
    """Images of a job's instances, within so many bytes of memory each."""

    def __init__(self, files: Mapping[str, InstanceFile], *, byte_limit: int) -> None:
        """Keep where the instances are, by SOP Instance UID; read nothing yet."""
        self._files = files
        self._byte_limit = byte_limit
        self._headers: dict[str, Dataset] = {}

    def header(self, frame: SourceFrame) -> Dataset:
        """Parse the file up to its pixels, once."""
        try:
            with quiet():
                return frame_attributes(self._header(frame), frame.frame)
        except SeriesRefusedError as refused:
            raise PictureError(refused.detail) from refused
        except READ_ERRORS as error:
            raise PictureError(f"an image has no readable header ({kind_of(error)})") from error

    def shown(self, frame: SourceFrame) -> Rgb:
        """Decode one frame."""
        try:
            return displayed(self._file(frame), frame.frame, byte_limit=self._byte_limit)
        except SeriesRefusedError as refused:
            raise PictureError(refused.detail) from refused

    def _header(self, frame: SourceFrame) -> Dataset:
        found = self._headers.get(frame.sop_instance_uid)
        if found is None:
            file = self._file(frame)
            found = read_dataset(file, byte_limit=self._byte_limit, with_pixels=False)
            self._headers[frame.sop_instance_uid] = found
        return found

    def _file(self, frame: SourceFrame) -> InstanceFile:
        file = self._files.get(frame.sop_instance_uid)
        if file is None:
            raise PictureError("an image is not among those of the job")
        return file
