"""Segmentation: labels every voxel of a volume, and measures what bears each label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints, model_validator

from engines.base import Array, Arrays, Session, Task, Work
from engines.body import Body, BodyRule, find_body
from engines.components import dilate, small_components
from engines.errors import InferenceError, ModelInvalidError
from engines.findings import Analysis, Code, Measurement, Outcome, Segment
from engines.images import BoolArray, Volume, VoxelArray
from engines.manifest import (
    CodedConcept,
    Colour,
    EnginePackage,
    Finite,
    Name,
    Positive,
    Sentence,
    Table,
    TaskSettings,
)
from engines.refusals import Reason, SeriesRefusedError, refuse
from engines.series import Series, load_volume, read_series, stack_series
from engines.suitability import unfit_grid, unfit_series

VOLUME: Final = Code("118565006", "SCT", "Volume")
AREA: Final = Code("42798000", "SCT", "Area")
ATTENUATION: Final = Code("112031", "DCM", "Attenuation Coefficient")
MEAN: Final = Code("373098007", "SCT", "Mean")
MILLILITRE: Final = Code("ml", "UCUM", "milliliter")
SQUARE_CENTIMETRE: Final = Code("cm2", "UCUM", "square centimeter")
HOUNSFIELD_UNIT: Final = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
LEFT_OUT_SHARE: Final = 0.03

LabelArray = npt.NDArray[np.uint8]


class ModelNames(Table):
    """The model's tensors.

    `image` is float32 [slice, 1, row, column] in the unit of the volume; `valid` is float32 of the
    same shape, 1 where the patient was imaged; `labels` comes back as integers of the same shape.
    """

    image: str
    valid: str
    labels: str


class BodySettings(Table):
    """How the body is told from table, clothes and air; see `engines.body.BodyRule`.

    Voxels on the surface of the body that look like the segment `not_on_surface` hold a good part
    of room air, and are left out.
    """

    above: Finite
    thin_mm: Positive
    lung_above: Finite
    smallest_share: Annotated[float, Field(ge=0, lt=1)]
    not_on_surface: Name | None = None


class SegmentSettings(Table):
    """One label. Components smaller than `smallest_ml` become the segment `otherwise`."""

    key: Name
    value: Annotated[int, Field(ge=1, le=255)]
    label: Annotated[str, StringConstraints(min_length=2, max_length=64)]
    category: CodedConcept
    type: CodedConcept
    colour: tuple[Colour, Colour, Colour]
    smallest_ml: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    otherwise: Name | None = None


class SegmentationSettings(TaskSettings):
    """The table `[segmentation]` of an engine package.

    Values below `lowest` are no patient, whatever the header says. `fill` takes the place of what
    is no patient before the model sees it. `slices_at_once` bounds what the model is handed.
    `area_slice` names the segment on whose largest cross-section areas are measured.
    `limits` are sentences that stand beside every result.
    """

    model: ModelNames
    lowest: Finite
    fill: Finite
    slices_at_once: Annotated[int, Field(ge=1, le=1024)]
    area_slice: Name
    body: BodySettings | None = None
    segments: Annotated[tuple[SegmentSettings, ...], Field(min_length=1)]
    limits: tuple[Sentence, ...] = ()

    @model_validator(mode="after")
    def _refers_to_its_segments(self) -> SegmentationSettings:
        keys = [segment.key for segment in self.segments]
        values = [segment.value for segment in self.segments]
        if len(set(keys)) != len(keys) or len(set(values)) != len(values):
            raise ValueError("two segments share a key or a value")
        named = {self.area_slice, *(s.otherwise for s in self.segments if s.otherwise)}
        if self.body is not None and self.body.not_on_surface is not None:
            named.add(self.body.not_on_surface)
        unknown = sorted(named - set(keys))
        if unknown:
            raise ValueError(f"no segment has the key {unknown[0]!r}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labelled:
    """Labels uint8 [slice, row, column], 0 where there is nothing, and the body if asked for."""

    labels: LabelArray
    body: Body | None


class Segmentation(Task):
    """Segments with volume, mean value and area; everything else stands in the package."""

    name: ClassVar[str] = "segmentation"
    settings_type: ClassVar[type[TaskSettings]] = SegmentationSettings

    def analyse(self, work: Work) -> Outcome:
        """Read the series, label it, and measure the segments."""
        byte_limit = work.package.manifest.resources.pixel_mib << 20
        work.progress("reading headers")
        series = read_series(work.instances, byte_limit=byte_limit)
        try:
            return self._analyse(series, work, byte_limit)
        except SeriesRefusedError as refused:
            return refuse(refused.reason, refused.detail, series.sources)

    def _analyse(self, series: Series, work: Work, byte_limit: int) -> Outcome:
        wanted = work.package.manifest.suitability
        if refusal := unfit_series(series, wanted):
            return refusal
        stacked = stack_series(series)
        if refusal := unfit_grid(stacked, wanted):
            return refusal
        work.progress("decoding")
        volume = load_volume(stacked, byte_limit=byte_limit)
        settings = _settings(work.package)
        work.progress("labelling")
        labelled = _label(volume, settings, work.session)
        work.progress("measuring")
        slice_index = _area_slice(labelled.labels, settings)
        return Analysis(
            grid=volume.grid,
            sources=volume.sources,
            findings=tuple(_segments(volume, labelled.labels, settings, slice_index)),
            sought=tuple(segment.type.code() for segment in settings.segments),
            limits=tuple(_limits(volume, labelled, settings)),
        )

    def compute(self, package: EnginePackage, session: Session, inputs: Arrays) -> Arrays:
        """Label `voxels` [slice, row, column] with `spacing` [3] in mm; return `labels`.

        `sizes` counts the voxels of each segment and `means` holds the mean value of each.
        """
        settings = _settings(package)
        voxels = inputs["voxels"].astype(np.int16)
        spacing = inputs["spacing"].astype(np.float64)
        valid = np.ones(voxels.shape, np.bool_)
        labelled = _labels(
            voxels, valid, (float(spacing[0]), float(spacing[1]), float(spacing[2])), settings,
            session,
        )  # fmt: skip
        masks = [labelled.labels == segment.value for segment in settings.segments]
        return {
            "labels": labelled.labels,
            "sizes": np.array([mask.sum() for mask in masks], dtype=np.float64),
            "means": np.array(
                [voxels[mask].mean() if mask.any() else 0.0 for mask in masks], dtype=np.float64
            ),
        }


def _settings(package: EnginePackage) -> SegmentationSettings:
    if not isinstance(package.settings, SegmentationSettings):
        raise ModelInvalidError(f"{package.name}: its settings are not those of a segmentation")
    return package.settings


def _label(volume: Volume, settings: SegmentationSettings, session: Session) -> _Labelled:
    valid = volume.valid & (volume.voxels >= settings.lowest)
    between, rows, columns = volume.grid.spacing
    return _labels(volume.voxels, valid, (between or 0.0, rows, columns), settings, session)


def _labels(
    voxels: VoxelArray,
    valid: BoolArray,
    spacing: tuple[float, float, float],
    settings: SegmentationSettings,
    session: Session,
) -> _Labelled:
    """Label voxels within the body, and give small components to their neighbours.

    Raises:
        SeriesRefusedError: no body was found.
    """
    body = None
    inside = valid
    if settings.body is not None:
        body = find_body(voxels, valid, _body_rule(settings.body, spacing))
        if body is None:
            raise SeriesRefusedError(Reason.NO_BODY, "no connected body was found in the images")
        inside = body.mask
    labels = np.zeros(voxels.shape, np.uint8)
    for first in range(0, len(voxels), settings.slices_at_once):
        part = slice(first, first + settings.slices_at_once)
        found = _infer(voxels[part], valid[part], settings, session)
        labels[part] = np.where(inside[part], found, 0)
    if body is not None:
        _bare_surface(labels, inside, valid, settings)
    _give_away_small_components(labels, spacing, settings)
    return _Labelled(labels=labels, body=body)


def _body_rule(settings: BodySettings, spacing: tuple[float, float, float]) -> BodyRule:
    rows, columns = (max(1, round(settings.thin_mm / 2 / mm)) for mm in spacing[1:])
    return BodyRule(
        above=settings.above,
        thin=(rows, columns),
        lung_above=settings.lung_above,
        smallest_share=settings.smallest_share,
    )


def _infer(
    voxels: VoxelArray, valid: BoolArray, settings: SegmentationSettings, session: Session
) -> LabelArray:
    names = settings.model
    image = np.where(valid, voxels, settings.fill).astype(np.float32)[:, None]
    outputs = session.run({names.image: image, names.valid: valid.astype(np.float32)[:, None]})
    if names.labels not in outputs:
        raise ModelInvalidError(f"the model has no output {names.labels!r}")
    found: Array = outputs[names.labels]
    if found.shape != image.shape or found.dtype.kind not in "iu":
        raise InferenceError(
            f"the model gave {found.dtype} {found.shape} for an image of {image.shape}"
        )
    return found[:, 0].astype(np.uint8)


def _bare_surface(
    labels: LabelArray, inside: BoolArray, valid: BoolArray, settings: SegmentationSettings
) -> None:
    """Apply `not_on_surface` in place."""
    if settings.body is None or settings.body.not_on_surface is None:
        return
    values = {segment.key: segment.value for segment in settings.segments}
    surface = dilate(valid & ~inside, 1, 1)
    surface &= labels == values[settings.body.not_on_surface]
    labels[surface] = 0


def _give_away_small_components(
    labels: LabelArray, spacing: tuple[float, float, float], settings: SegmentationSettings
) -> None:
    """Apply `smallest_ml` in place. A single slice counts as 1 mm thick."""
    values = {segment.key: segment.value for segment in settings.segments}
    voxel_ml = (spacing[0] or 1.0) * spacing[1] * spacing[2] / 1000.0
    for segment in settings.segments:
        smallest = int(np.ceil(segment.smallest_ml / voxel_ml))
        if smallest > 1:
            small = small_components(labels == segment.value, smallest)
            labels[small] = values[segment.otherwise] if segment.otherwise else 0


def _area_slice(labels: LabelArray, settings: SegmentationSettings) -> int:
    """Return the slice on which the named segment has its largest cross-section."""
    value = next(s.value for s in settings.segments if s.key == settings.area_slice)
    return int(np.argmax([np.count_nonzero(plane == value) for plane in labels]))


def _segments(
    volume: Volume, labels: LabelArray, settings: SegmentationSettings, slice_index: int
) -> Iterator[Segment]:
    for segment in settings.segments:
        mask = labels == segment.value
        if not mask.any():
            continue
        yield Segment(
            key=segment.key,
            label=segment.label,
            category=segment.category.code(),
            type=segment.type.code(),
            colour=segment.colour,
            mask=mask,
            measurements=tuple(_measure(volume, mask, slice_index)),
        )


def _measure(volume: Volume, mask: BoolArray, slice_index: int) -> Iterator[Measurement]:
    """Measure one segment: volume where slices have a distance, mean HU, area on one slice."""
    voxel_ml = volume.grid.voxel_volume_ml
    if voxel_ml is not None:
        yield Measurement(
            name=VOLUME, value=int(np.count_nonzero(mask)) * voxel_ml, unit=MILLILITRE
        )
    if volume.unit == "HU":
        yield Measurement(
            name=ATTENUATION,
            value=float(np.mean(volume.voxels, dtype=np.float64, where=mask)),
            unit=HOUNSFIELD_UNIT,
            derivation=MEAN,
        )
    _, rows, columns = volume.grid.spacing
    pixels = int(np.count_nonzero(mask[slice_index]))
    if pixels:
        yield Measurement(
            name=AREA,
            value=pixels * rows * columns / 100.0,
            unit=SQUARE_CENTIMETRE,
            slice_index=slice_index,
        )


def _limits(volume: Volume, labelled: _Labelled, settings: SegmentationSettings) -> Iterator[str]:
    yield from settings.limits
    yield from volume.notes
    slices = len(volume.voxels)
    if slices == 1:
        yield "The series has a single slice: no volumes are given."
    if labelled.body is None:
        return
    if labelled.body.cut_slices:
        yield (
            f"The body reaches the edge of the field of view on {labelled.body.cut_slices} of"
            f" {slices} slices: what lies beyond is not counted."
        )
    if labelled.body.left_out_share > LEFT_OUT_SHARE:
        yield (
            "Parts that do not hang together with the body (arms, or the table) were left out; the"
            f" largest has {100 * labelled.body.left_out_share:.0f} % of the size of the body."
        )
