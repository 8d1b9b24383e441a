"""What `engine.toml` may say: strict, frozen records. An unknown key is refused with its path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydicom.datadict import tag_for_keyword

from engines.errors import PackageError
from engines.findings import Code

Sentence = Annotated[
    str, StringConstraints(min_length=10, max_length=512, pattern=r"^[^\x00-\x1f]+$")
]
Name = Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$")]
Version = Annotated[str, StringConstraints(max_length=64, pattern=r"^\d+\.\d+\.\d+$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Uid = Annotated[str, StringConstraints(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)+$")]
Keyword = Annotated[str, StringConstraints(max_length=16, pattern=r"^[A-Z0-9_ ]+$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Colour = Annotated[int, Field(ge=0, le=255)]


class Table(BaseModel):
    """Base of every table of `engine.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TaskSettings(Table):
    """Base of the table that belongs to a kind of task; it bears the task's name."""


class CodedConcept(Table):
    """A coded concept (PS3.3 8.1-8.3)."""

    value: Annotated[str, StringConstraints(min_length=1, max_length=16)]
    scheme: Annotated[str, StringConstraints(min_length=1, max_length=16)]
    meaning: Annotated[str, StringConstraints(min_length=1, max_length=64)]

    def code(self) -> Code:
        """Return it as findings carry it."""
        return Code(self.value, self.scheme, self.meaning)


Size = Annotated[int, Field(ge=1, le=65536)]
Precision = Literal["float32", "tf32", "float16"]
Device = Literal["cpu", "cuda"]


class ShapeTable(Table):
    """The shapes that an input may have: the least, the usual and the largest of every axis."""

    min: tuple[Size, ...]
    opt: tuple[Size, ...]
    max: tuple[Size, ...]

    @model_validator(mode="after")
    def _in_order(self) -> ShapeTable:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError("min, opt and max do not have the same number of axes")
        if any(not a <= b <= c for a, b, c in zip(self.min, self.opt, self.max, strict=True)):
            raise ValueError("an axis is not in the order min, opt, max")
        return self


class PartTable(Table):
    """Which file the runtime loads, and which shapes its inputs may have, by their names.

    Shapes are needed by runtimes that prepare a model for its shapes, such as TensorRT.
    """

    file: str
    shapes: dict[str, ShapeTable] = {}


class ModelTable(PartTable):
    """The model, and in `parts` the others that an engine needs, by name."""

    parts: dict[Name, PartTable] = {}

    @property
    def files(self) -> tuple[str, ...]:
        """Every file, the first one first."""
        return self.file, *(part.file for part in self.parts.values())


class RungTable(Table):
    """One way to run the model: a runtime, on a device, in a precision, with its own deadlines.

    Deadlines that are absent are those of `[resources]`.
    """

    runtime: Name
    device: Device = "cpu"
    precision: Precision = "float32"
    soft_deadline_seconds: Positive | None = None
    hard_deadline_seconds: Positive | None = None

    def __str__(self) -> str:
        """Return it as a person writes it: `tensorrt cuda float16`."""
        return f"{self.runtime} {self.device} {self.precision}"

    @model_validator(mode="after")
    def _deadlines_in_order(self) -> RungTable:
        soft, hard = self.soft_deadline_seconds, self.hard_deadline_seconds
        if (soft is None) != (hard is None):
            raise ValueError("give both deadlines, or none")
        if soft is not None and hard is not None and soft > hard:
            raise ValueError("soft_deadline_seconds is above hard_deadline_seconds")
        return self


def read_rung(text: str) -> RungTable:
    """Read a rung as a person writes it: a runtime, then its device, then its precision.

    Without a device it is the CPU, without a precision it is float32.

    Raises:
        ValueError: a word is none of these, or the runtime's name is none.
    """
    if not text.split():
        raise ValueError("a rung begins with the name of a runtime")
    name, *words = text.split()
    table: dict[str, str] = {"runtime": name}
    for word in words:
        key = "device" if word in get_args(Device) else "precision"
        if key == "precision" and word not in get_args(Precision):
            raise ValueError(f"{word} is neither a device nor a precision")
        table[key] = word
    try:
        return RungTable.model_validate(table)
    except ValidationError as error:
        raise ValueError(f"{name} is no name of a runtime") from error


class ParityTable(Table):
    """How far a runtime may be from the reference on the golden case, and still be used.

    `max_error`: the largest difference of any output of the model, relative to the largest
    magnitude that the reference gave there; of whole numbers the share that differs. `dice`: the
    least overlap of any segment. `probability`: the largest difference of any share.
    """

    max_error: Annotated[float, Field(ge=0, le=1)] = 0.02
    dice: Annotated[float, Field(ge=0, le=1)] = 0.99
    probability: Annotated[float, Field(ge=0, le=1)] = 0.01


class GoldenTable(Table):
    """The golden case: arrays in, arrays expected, and how much they may differ."""

    inputs: str
    expected: str
    tolerance: Annotated[float, Field(ge=0, le=0.1)]


class ResourceTable(Table):
    """What a job of this engine may use. `pixel_mib` bounds the decoded pixels of a series.

    `device_mib` bounds what a plan of its model may work in on a device; one that needs more for
    the largest of `[model.shapes]` is not built.
    """

    soft_deadline_seconds: Positive
    hard_deadline_seconds: Positive
    memory_mib: Annotated[int, Field(gt=0)]
    pixel_mib: Annotated[int, Field(gt=0)]
    device_mib: Annotated[int, Field(gt=0)] = 1024

    @model_validator(mode="after")
    def _in_order(self) -> ResourceTable:
        if self.soft_deadline_seconds > self.hard_deadline_seconds:
            raise ValueError("soft_deadline_seconds is above hard_deadline_seconds")
        return self


class AttributeRule(Table):
    """What an attribute of every image has to be, by its DICOM keyword.

    `allowed`: one of its values, letters in upper case, is one of these; an absent one is let pass
    unless it has to be `present`. With `present` false it has to be absent or empty.
    """

    keyword: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]{1,63}$")]
    allowed: tuple[str, ...] = ()
    present: bool | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> AttributeRule:
        if not self.allowed and self.present is None:
            raise ValueError("neither allowed nor present is said")
        if self.allowed and self.present is False:
            raise ValueError("an attribute that has to be absent has no allowed values")
        if tag_for_keyword(self.keyword) is None:
            raise ValueError(f"{self.keyword} is no keyword of DICOM")
        return self


class SuitabilityTable(Table):
    """Which series the engine may be run on; anything else is refused with a coded reason.

    Distances in mm. `plane_tolerance_degrees` is the angle that slices may lie off the plane.
    `body_parts` are values of Body Part Examined; an absent value is never refused.
    `image_types_excluded` are words that no value of Image Type may be; `photometrics` are the
    photometric interpretations that are read, any where none is named. `unit` "SUV" asks for PET
    whose header says how to get from activity to standardized uptake by body weight. `calibration`
    "ultrasound" asks for a region of tissue whose pixels have a size. `attributes` ask for others.
    """

    modalities: Annotated[tuple[Keyword, ...], Field(min_length=1)]
    sop_classes: Annotated[tuple[Uid, ...], Field(min_length=1)]
    unit: Literal["HU", "SUV", ""] = ""
    calibration: Literal["ultrasound", ""] = ""
    photometrics: tuple[Keyword, ...] = ()
    attributes: tuple[AttributeRule, ...] = ()
    plane: Literal["axial", "coronal", "sagittal", "any"] = "any"
    plane_tolerance_degrees: Annotated[float, Field(gt=0, le=45)] = 15.0
    min_slices: Annotated[int, Field(ge=1)] = 1
    max_slices: Annotated[int, Field(ge=1)]
    max_slice_distance: Positive
    max_pixel_size: Positive
    min_matrix: Annotated[int, Field(ge=1)] = 16
    body_parts: tuple[Keyword, ...] = ()
    body_parts_excluded: tuple[Keyword, ...] = ()
    image_types_excluded: tuple[Keyword, ...] = ()
    lossy: Literal["accept", "refuse"] = "refuse"


class Manifest(Table):
    """The whole of `engine.toml`, without the table of the task.

    `ladder` lists ways to run the model that are tried first, best first; where none can be used,
    `runtime` runs it on its usual device in float32.
    """

    name: Name
    version: Version
    title: Annotated[str, StringConstraints(min_length=3, max_length=64)]
    intended_use: Sentence
    clinical_use: Sentence
    task: Name
    runtime: Name
    model: ModelTable
    ladder: tuple[RungTable, ...] = ()
    golden: GoldenTable
    parity: ParityTable = ParityTable()
    resources: ResourceTable
    suitability: SuitabilityTable
    files: Annotated[dict[str, Digest], Field(min_length=1)]
    parameters: dict[Annotated[str, StringConstraints(max_length=64)], str] = {}

    @model_validator(mode="after")
    def _names_its_files(self) -> Manifest:
        for file in (*self.model.files, self.golden.inputs, self.golden.expected):
            if file not in self.files:
                raise ValueError(f"{file} is used, but [files] gives no digest for it")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePackage:
    """An engine package that was read and checked.

    `digest` is the SHA-256 (hex) over all of its files. `settings` is the table of its task.
    """

    folder: Path
    digest: str
    manifest: Manifest
    settings: TaskSettings

    def read_file(self, name: str) -> bytes:
        """Read one file that `[files]` lists, and check its digest again before it is used.

        Raises:
            PackageError: the file is not listed, is gone, or changed since the package was loaded.
        """
        if name not in self.manifest.files:
            raise PackageError(f"{name}: [files] gives no digest for it")
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise PackageError(f"{name}: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != self.manifest.files[name]:
            raise PackageError(f"{name}: changed since the package was loaded")
        return data

    @property
    def name(self) -> str:
        """The name that rules use."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The version, as its maker counts."""
        return self.manifest.version

    @property
    def task(self) -> str:
        """The kind of task."""
        return self.manifest.task

    @property
    def runtime(self) -> str:
        """The runtime that loads the model."""
        return self.manifest.runtime

    @property
    def intended_use(self) -> str:
        """One sentence on what the engine is for."""
        return self.manifest.intended_use

    @property
    def clinical_use(self) -> str:
        """One sentence on whether results may be used on patients."""
        return self.manifest.clinical_use

    @property
    def soft_deadline_seconds(self) -> float:
        """After this a job is late, and is said to be."""
        return self.manifest.resources.soft_deadline_seconds

    @property
    def hard_deadline_seconds(self) -> float:
        """After this a job is ended."""
        return self.manifest.resources.hard_deadline_seconds

    @property
    def memory_mib(self) -> int:
        """How much memory a job may need."""
        return self.manifest.resources.memory_mib

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """What result objects say about how the engine works, by name."""
        return tuple(sorted(self.manifest.parameters.items()))
