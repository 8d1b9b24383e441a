"""Localisation: finds how a template lies in the patient, and outlines structures where it says.

Three nets: one looks at the whole field of view and says what is where, one turns that into an
affine from the template to the patient, and one outlines structures in regions of the template.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from engines.base import Arrays, Session, Task, Work, analyse_series
from engines.errors import InferenceError, ModelInvalidError
from engines.findings import Analysis, Measurement, Outcome, Segment
from engines.images import BoolArray, FloatArray, Volume, VoxelArray
from engines.manifest import (
    EnginePackage,
    Finite,
    Name,
    ParityTable,
    Positive,
    Sentence,
    Table,
    TaskSettings,
)
from engines.measuring import MILLILITRE, VOLUME
from engines.plausibility import believed, place_doubts, volume_doubts
from engines.recipe import Count, Orientation, Share, TensorName
from engines.refusals import Reason, SeriesRefusedError
from engines.resampling import (
    Lattice,
    Values,
    axial_lattice,
    corner_aligned,
    cut,
    flipped,
    lattice_of,
    resample,
)
from engines.segments import SegmentSettings
from engines.series import Series, load_volume, stack_series
from engines.suitability import unfit_grid, unfit_series

Index = Annotated[int, Field(ge=0, le=4096)]
LEAST_SCALE: Final = 1e-3
"""An affine that shrinks the template's volume more than this is none."""


class OverviewSettings(Table):
    """The first net: `shape` voxels whose corners are the corners of the field of view.

    The mask is channel `mask` of its output; where it is above `threshold` lies `segment`.
    """

    model: Name
    input: TensorName
    output: TensorName
    orientation: Orientation
    shape: tuple[Count, Count, Count]
    mask: Index = 0
    threshold: Share = 0.5
    segment: SegmentSettings


class Box(Table):
    """Voxels in the template's own millimetres: the centre of the first, and the way to the next.

    The axes of the array are x, y, z of the template.
    """

    shape: tuple[Count, Count, Count]
    origin: tuple[Finite, Finite, Finite]
    step: tuple[Finite, Finite, Finite]

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Box:
        if not all(self.step):
            raise ValueError("step: is zero along an axis")
        return self

    def lattice(self) -> Lattice:
        """Return it as a lattice in the template."""
        affine = np.diag([*self.step, 1.0])
        affine[:3, 3] = self.origin
        return Lattice(shape=self.shape, affine=affine)


class PlacingSettings(Table):
    """The second net: `channels` of the first one's output, each times its mask, to an affine.

    It gives float [1, 4, 4], transposed, from the template's `box` to the field of view, both of
    which reach from -1 to 1 along each axis, corner voxel to corner voxel.
    """

    model: Name
    input: TensorName
    output: TensorName
    channels: Annotated[tuple[Index, ...], Field(min_length=1)]
    box: Box


class CropSettings(Table):
    """A part of the region that the third net is given, turned around along the axes `mirror`."""

    first: tuple[Index, Index, Index]
    shape: tuple[Count, Count, Count]
    mirror: tuple[Literal[0, 1, 2], ...] = ()
    segment: SegmentSettings


class OutlineSettings(Table):
    """The third net, the model itself: a region of the template, less its mean, by its deviation.

    Its output is smaller than its input by the same on both sides. What it gives above `threshold`
    counts more the surer it is: `steepness` (p - threshold) + threshold, at most 1. Carried to the
    voxels of the images, what is at least `least` counts; the sum of that is the volume.
    """

    input: TensorName
    output: TensorName
    region: Box
    threshold: Share = 0.5
    steepness: Positive = 1.0
    least: Share = 0.0
    crops: Annotated[tuple[CropSettings, ...], Field(min_length=1)]


class LocalisationSettings(TaskSettings):
    """The table `[localisation]`. `limits` are sentences that stand beside every result."""

    overview: OverviewSettings
    placing: PlacingSettings
    outline: OutlineSettings
    limits: tuple[Sentence, ...] = ()

    @property
    def segments(self) -> tuple[SegmentSettings, ...]:
        """What is outlined, in the order of the results."""
        return self.overview.segment, *(crop.segment for crop in self.outline.crops)

    @model_validator(mode="after")
    def _tells_its_segments_apart(self) -> LocalisationSettings:
        keys = {segment.key for segment in self.segments}
        if len(keys) < len(self.segments):
            raise ValueError("two segments share a key")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outline:
    """Shares float32 [slice, row, column] on the source, and the volume of all of them in mL."""

    settings: SegmentSettings
    shares: Values
    threshold: float
    millilitres: float

    @property
    def mask(self) -> BoolArray:
        """Return where it is, bool."""
        found: BoolArray = self.shares > self.threshold
        return found


class Localisation(Task):
    """Structures found through a template, with their volumes."""

    name: ClassVar[str] = "localisation"
    settings_type: ClassVar[type[TaskSettings]] = LocalisationSettings

    def analyse(self, work: Work) -> Outcome:
        """Read the series, find the template in it, outline and measure."""
        return analyse_series(work, self._analyse)

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
        source = lattice_of(volume.grid)
        values = _standard(volume.voxels, volume.valid)
        priors, field = _overview(values, source, settings.overview, work.session)
        place = _place(priors, field, settings, work.session)
        outlines = [_mask(priors, field, source, settings.overview)]
        outlines += _outlines(values, source, place, settings.outline, work.session)
        analysis = Analysis(
            grid=volume.grid,
            sources=volume.sources,
            findings=tuple(_segments(outlines, volume)),
            sought=tuple(segment.type.code() for segment in settings.segments),
            limits=(*settings.limits, *volume.notes),
        )
        return believed(analysis, tuple(_doubts(outlines, analysis.findings)))

    def compute(self, package: EnginePackage, session: Session, inputs: Arrays) -> Arrays:
        """Run on `voxels` [slice, row, column] with `spacing` [3] in mm.

        Returns `priors`, the mean of each channel of the first net; `affine` of the second; and
        `volumes` in mL of each segment.
        """
        settings = _settings(package)
        voxels = inputs["voxels"].astype(np.int16)
        between, rows, columns = (float(mm) for mm in inputs["spacing"])
        source = axial_lattice(voxels.shape, (between, rows, columns))
        values = _standard(voxels, np.ones(voxels.shape, np.bool_))
        priors, field = _overview(values, source, settings.overview, session)
        affine = _affine(priors, settings, session)
        place = field.affine @ _box_to_box(affine, settings.placing.box.lattice(), field)
        outlines = [_mask(priors, field, source, settings.overview)]
        outlines += _outlines(values, source, place, settings.outline, session)
        return {
            "priors": priors.mean(axis=(1, 2, 3), dtype=np.float64),
            "affine": affine,
            "volumes": np.array([outline.millilitres for outline in outlines]),
        }

    def disagreements(self, reference: Arrays, found: Arrays, allowed: ParityTable) -> list[str]:
        """Compare the affines: how far the corners of the template's box lie apart, as a share."""
        corners = np.array([*product((-1.0, 1.0), repeat=3)])
        gaps = found["affine"].astype(np.float64) - reference["affine"].astype(np.float64)
        apart = float(np.linalg.norm(corners @ gaps[:3, :3].T + gaps[:3, 3], axis=1).max()) / 2
        if apart <= allowed.max_error:
            return []
        return [
            f"the template lies {apart:.3g} of the image apart, {allowed.max_error:g} is allowed"
        ]


def _settings(package: EnginePackage) -> LocalisationSettings:
    if not isinstance(package.settings, LocalisationSettings):
        raise ModelInvalidError(f"{package.name}: its settings are not those of a localisation")
    return package.settings


def _doubts(outlines: Sequence[_Outline], found: Sequence[Segment]) -> Iterator[str]:
    """Say what cannot be true of what was outlined; what was not found has no place."""
    places = {segment.key: segment for segment in found}
    for outline in outlines:
        wanted = outline.settings
        yield from volume_doubts(wanted, outline.millilitres)
        if wanted.key in places:
            place = places[wanted.key]
            yield from place_doubts(wanted, place.labels, place.value)


def _standard(voxels: VoxelArray, valid: BoolArray) -> Values:
    """Subtract the mean and divide by the deviation; padding becomes the mean."""
    part = voxels if valid.all() else voxels[valid]
    mean = np.mean(part, dtype=np.float64)
    deviation = float(np.std(part, dtype=np.float64)) or 1.0
    values: Values = ((voxels - mean) / deviation).astype(np.float32)
    values[~valid] = 0
    return values


def _overview(
    values: Values, source: Lattice, wanted: OverviewSettings, session: Session
) -> tuple[Values, Lattice]:
    """Return the first net's output [channel, 0, 1, 2] and the lattice it lies on."""
    field = corner_aligned(source, wanted.orientation, wanted.shape)
    image = resample(values, source, field, "linear", 0.0)
    found = _run(session.part(wanted.model), wanted.input, wanted.output, image[None, None])
    if found.ndim != 5 or found.shape[2:] != wanted.shape or found.shape[1] <= wanted.mask:  # noqa: PLR2004 - [batch, channel, 0, 1, 2]
        raise InferenceError(f"the model {wanted.model!r} gave {found.shape}")
    return found[0], field


def _place(
    priors: Values, field: Lattice, settings: LocalisationSettings, session: Session
) -> FloatArray:
    """Return the affine from millimetres of the template to LPS.

    Raises:
        SeriesRefusedError: the net found no place for it.
    """
    affine = _affine(priors, settings, session)
    if abs(float(np.linalg.det(affine[:3, :3]))) < LEAST_SCALE:
        raise SeriesRefusedError(Reason.NO_BODY, "the template was not found in the images")
    return field.affine @ _box_to_box(affine, settings.placing.box.lattice(), field)


def _affine(priors: Values, settings: LocalisationSettings, session: Session) -> FloatArray:
    wanted = settings.placing
    if max(wanted.channels) >= len(priors):
        raise InferenceError(f"the first net gave {len(priors)} channels")
    tensor = priors[list(wanted.channels)] * priors[settings.overview.mask]
    found = _run(session.part(wanted.model), wanted.input, wanted.output, tensor[None])
    if found.shape != (1, 4, 4):
        raise InferenceError(f"the model {wanted.model!r} gave {found.shape}, no affine")
    affine: FloatArray = found[0].T.astype(np.float64)
    return affine


def _box_to_box(affine: FloatArray, box: Lattice, field: Lattice) -> FloatArray:
    """Return from millimetres of the template to indices of the field of view, through -1 to 1."""
    found: FloatArray = (
        np.linalg.inv(_to_unit(field)) @ affine @ _to_unit(box) @ np.linalg.inv(box.affine)
    )
    return found


def _to_unit(lattice: Lattice) -> FloatArray:
    """Return from indices to -1 at the first voxel and 1 at the last, float64 [4, 4]."""
    matrix = np.diag([*(2 / max(size - 1, 1) for size in lattice.shape), 1.0])
    matrix[:3, 3] = -1
    return matrix


def _mask(priors: Values, field: Lattice, source: Lattice, wanted: OverviewSettings) -> _Outline:
    shares = resample(np.ascontiguousarray(priors[wanted.mask]), field, source, "linear", 0.0)
    count = int(np.count_nonzero(shares > wanted.threshold))
    return _Outline(
        settings=wanted.segment,
        shares=shares,
        threshold=wanted.threshold,
        millilitres=count * _millilitres(source),
    )


def _outlines(
    values: Values, source: Lattice, place: FloatArray, wanted: OutlineSettings, session: Session
) -> Iterator[_Outline]:
    """Yield what the third net outlines in each crop."""
    region, voxel_ml = wanted.region.lattice(), _millilitres(source)
    lattice = Lattice(shape=region.shape, affine=place @ region.affine)
    image = resample(values, source, lattice, "linear", 0.0)
    image = (image - image.mean()) / (float(image.std()) or 1.0)
    for crop in wanted.crops:
        part = tuple(slice(a, a + n) for a, n in zip(crop.first, crop.shape, strict=True))
        tensor = np.flip(image[part], crop.mirror)
        if tensor.shape != crop.shape:
            raise ModelInvalidError(f"the crop of {crop.segment.key} leaves the region")
        found = _run(session, wanted.input, wanted.output, tensor[None, None])
        margins = [a - b for a, b in zip(crop.shape, found.shape[2:], strict=False)]
        if found.ndim != 5 or found.shape[1] != 1 or any(m < 0 or m % 2 for m in margins):  # noqa: PLR2004 - [batch, 1, 0, 1, 2]
            raise InferenceError(f"the model gave {found.shape} for a crop of {crop.shape}")
        shares = _surer(found[0, 0], wanted)
        there = flipped(cut(lattice, crop.first, crop.shape), crop.mirror)
        there = cut(there, [margin // 2 for margin in margins], shares.shape)
        carried = resample(shares, there, source, "linear", 0.0)
        counted = carried.sum(where=carried >= wanted.least, dtype=np.float64)
        yield _Outline(
            settings=crop.segment,
            shares=carried,
            threshold=wanted.threshold,
            millilitres=float(counted) * voxel_ml,
        )


def _millilitres(lattice: Lattice) -> float:
    """Return the volume of a voxel."""
    return abs(float(np.linalg.det(lattice.affine[:3, :3]))) / 1000


def _surer(shares: Values, wanted: OutlineSettings) -> Values:
    steep = wanted.steepness * (shares - wanted.threshold) + wanted.threshold
    found: Values = np.where(shares > wanted.threshold, np.clip(steep, 0, 1), 0).astype(np.float32)
    return found


def _run(session: Session, given: str, wanted: str, tensor: Values) -> Values:
    outputs = session.run({given: np.ascontiguousarray(tensor, np.float32)})
    if wanted not in outputs:
        raise ModelInvalidError(f"the model has no output {wanted!r}")
    found = outputs[wanted]
    if found.dtype.kind != "f" or not np.isfinite(found).all():
        raise InferenceError(f"the model gave {found.dtype} values, or some that are not finite")
    return found.astype(np.float32, copy=False)


def _segments(outlines: Sequence[_Outline], volume: Volume) -> Iterator[Segment]:
    for outline in outlines:
        mask = outline.mask & volume.valid
        if not mask.any():
            continue
        segment = outline.settings
        yield Segment(
            key=segment.key,
            label=segment.label,
            category=segment.category.code(),
            type=segment.type.code(),
            region=segment.region.code() if segment.region else None,
            laterality=segment.laterality.code() if segment.laterality else None,
            colour=segment.colour,
            labels=mask.view(np.uint8),
            measurements=(Measurement(name=VOLUME, value=outline.millilitres, unit=MILLILITRE),),
        )
