"""Slide: outlines many small things on a stained slide, tile by tile, and counts them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints, model_validator
from scipy import ndimage

from engines.base import Arrays, Session, Task, Work, analyse_series
from engines.components import label, sizes
from engines.errors import InferenceError, ModelInvalidError
from engines.findings import Code, Measurement, Outcome, Outlines, SlideAnalysis
from engines.images import BoolArray, FloatArray
from engines.manifest import (
    CodedConcept,
    Colour,
    EnginePackage,
    Name,
    ParityTable,
    Sentence,
    Table,
    TaskSettings,
)
from engines.measuring import dice
from engines.networks import activated
from engines.outlining import area_of, outline_of
from engines.phantoms import picture
from engines.recipe import Count, Share, TensorName
from engines.refusals import SCHEME, Reason, SeriesRefusedError
from engines.series import Series
from engines.slides import Colours, Slide, read_slide
from engines.staining import saturation_of, stain_of
from engines.suitability import unfit_series
from engines.windows import Values

NUMBER: Final = Code("COUNT", SCHEME, "Number of outlined objects")
PER_AREA: Final = Code("PER_AREA", SCHEME, "Number per area of tissue")
MEDIAN_AREA: Final = Code("42798000", "SCT", "Area")
MEDIAN: Final = Code("373099004", "SCT", "Median")
UNITLESS: Final = Code("1", "UCUM", "no units")
PER_SQUARE_MILLIMETRE: Final = Code("/mm2", "UCUM", "per square millimeter")
SQUARE_MICROMETRE: Final = Code("um2", "UCUM", "square micrometer")
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StainSettings(Table):
    """How colours become the net's image.

    Of `stain`, smoothed by `smooth` pixels, less the mean of the tissue and by its deviation.
    Tissue is where saturation, smoothed by `tissue_smooth` pixels, is above `tissue_above`; less
    than `least_tissue` of the slide in square millimetres is no tissue.
    """

    stain: Literal["haematoxylin", "eosin", "dab"]
    smooth: Amount = 0.0
    tissue_above: Share
    tissue_smooth: Amount = 0.0
    least_tissue: Amount = 0.0


class TileSettings(Table):
    """The net: float32 [1, 1, row, column] of `tile` pixels in, scores of the same shape out.

    `halo` pixels at each edge of a tile are the neighbours' business.
    """

    input: TensorName
    output: TensorName
    tile: Count
    halo: Annotated[int, Field(ge=0, le=1024)] = 0
    activation: Literal["none", "sigmoid"] = "none"
    threshold: Share = 0.5

    @model_validator(mode="after")
    def _leaves_something(self) -> TileSettings:
        if self.tile <= 2 * self.halo:
            raise ValueError("halo leaves nothing of a tile")
        return self


class ThingSettings(Table):
    """What is outlined, and from which to which area in square micrometres it can be one."""

    key: Name
    label: Annotated[str, StringConstraints(min_length=2, max_length=64)]
    category: CodedConcept
    type: CodedConcept
    colour: tuple[Colour, Colour, Colour]
    square_micrometres: tuple[Amount, Amount]


class SlideSettings(TaskSettings):
    """The table `[slide]`. `pixel_size` is the range in mm that the net can work on."""

    pixel_size: tuple[Amount, Amount]
    preprocessing: StainSettings
    inference: TileSettings
    thing: ThingSettings
    limits: tuple[Sentence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """Where the net's score is above the threshold, and where there is tissue; bool [row, column].

    `scores` is the mean of what the net gave.
    """

    found: BoolArray
    tissue: BoolArray
    score: float


class TiledSlide(Task):
    """Outlines on a slide, with their number, number per area, and areas."""

    name: ClassVar[str] = "slide"
    settings_type: ClassVar[type[TaskSettings]] = SlideSettings

    def analyse(self, work: Work) -> Outcome:
        """Read the finest image that the net can work on, run the net on it, outline and count."""
        return analyse_series(work, self._analyse)

    def _analyse(self, series: Series, work: Work, byte_limit: int) -> Outcome:
        if refusal := unfit_series(series, work.package.manifest.suitability):
            return refusal
        settings = _settings(work.package)
        work.progress("decoding")
        slide = _finest(series, settings, byte_limit)
        work.progress("labelling")
        looked = _look(slide.colours, settings, work.session)
        tissue = float(np.count_nonzero(looked.tissue)) * math.prod(slide.spacing)
        if tissue < settings.preprocessing.least_tissue:
            raise SeriesRefusedError(
                Reason.NO_BODY, f"{tissue:.3f} square millimetres of tissue on the slide"
            )
        work.progress("measuring")
        outlines = _outlines(looked, slide, tissue, settings.thing)
        return SlideAnalysis(
            sources=(slide.source,),
            findings=(outlines,) if outlines.polygons else (),
            sought=(settings.thing.type.code(),),
            limits=(*settings.limits, *series.notes),
        )

    def golden_inputs(self) -> Arrays:
        """Return a picture."""
        return picture()

    def compute(self, package: EnginePackage, session: Session, inputs: Arrays) -> Arrays:
        """Run on `voxels` [image, row, column] of 0 to 255, taken as a slide from blue to white."""
        picture = np.clip(inputs["voxels"][0], 0, 255).astype(np.uint8)
        colours = np.stack([255 - picture, 255 - picture, 255 - picture // 4], axis=-1)
        looked = _look(colours, _settings(package), session)
        return {
            "found": looked.found,
            "tissue": looked.tissue,
            "score": np.array([looked.score]),
        }

    def disagreements(self, reference: Arrays, found: Arrays, allowed: ParityTable) -> list[str]:
        """Compare what was found by its overlap (Dice)."""
        overlap = dice(reference["found"] != 0, found["found"] != 0)
        if overlap >= allowed.dice:
            return []
        return [f"what was found overlaps by {overlap:.4f} (Dice), {allowed.dice:g} is asked for"]


def _settings(package: EnginePackage) -> SlideSettings:
    if not isinstance(package.settings, SlideSettings):
        raise ModelInvalidError(f"{package.name}: its settings are not those of a slide task")
    return package.settings


def _finest(series: Series, settings: SlideSettings, byte_limit: int) -> Slide:
    """Read the image with the smallest pixels of those that the net can work on.

    Raises:
        SeriesRefusedError: there is none, and what `read_slide` raises.
    """
    low, high = settings.pixel_size
    known = [(max(frame.pixel_spacing), frame) for frame in series.frames if frame.pixel_spacing]
    if not known:
        raise SeriesRefusedError(Reason.MISSING_GEOMETRY, "no image of the slide has pixel spacing")
    fit = [(size, frame) for size, frame in known if low <= size <= high]
    if not fit:
        finest = min(size for size, _ in known)
        raise SeriesRefusedError(
            Reason.PIXELS_TOO_LARGE if finest > high else Reason.PIXELS_TOO_SMALL,
            f"pixels of {1000 * finest:.3g} micrometres; {1000 * low:g} to {1000 * high:g} are"
            " accepted",
        )
    return read_slide(min(fit, key=lambda item: item[0])[1], byte_limit=byte_limit)


def _look(colours: Colours, settings: SlideSettings, session: Session) -> _Looked:
    wanted, net = settings.preprocessing, settings.inference
    stained = _smoothed(stain_of(colours, wanted.stain), wanted.smooth)
    tissue = _smoothed(saturation_of(colours), wanted.tissue_smooth) > wanted.tissue_above
    part = stained[tissue] if tissue.any() else stained
    deviation = float(np.std(part, dtype=np.float64)) or 1.0
    stained = ((stained - np.mean(part, dtype=np.float64)) / deviation).astype(np.float32)
    scores = activated(_tiled(stained, net, session), net.activation)
    return _Looked(
        found=(scores > net.threshold) & tissue,
        tissue=tissue,
        score=float(np.mean(scores, dtype=np.float64)),
    )


def _smoothed(values: Values, pixels: float) -> Values:
    if not pixels:
        return values
    found: Values = ndimage.gaussian_filter(values, pixels)
    return found


def _tiled(image: Values, net: TileSettings, session: Session) -> Values:
    """Return scores float32 [row, column]; beyond the edge the image is mirrored."""
    step = net.tile - 2 * net.halo
    rows, columns = image.shape
    down, across = -(-rows // step), -(-columns // step)
    ends = (
        (net.halo, down * step - rows + net.halo),
        (net.halo, across * step - columns + net.halo),
    )
    padded = np.pad(image, ends, mode="symmetric")
    scores = np.empty((down * step, across * step), np.float32)
    inner = slice(net.halo, net.halo + step)
    for row in range(0, down * step, step):
        for column in range(0, across * step, step):
            tile = padded[row : row + net.tile, column : column + net.tile]
            found = _run(np.ascontiguousarray(tile), net, session)
            scores[row : row + step, column : column + step] = found[inner, inner]
    return scores[:rows, :columns]


def _run(tile: Values, net: TileSettings, session: Session) -> Values:
    outputs = session.run({net.input: tile[None, None]})
    if net.output not in outputs:
        raise ModelInvalidError(f"the model has no output {net.output!r}")
    found = outputs[net.output]
    if found.shape != (1, 1, *tile.shape) or found.dtype.kind != "f":
        raise InferenceError(f"the model gave {found.dtype} {found.shape} for {tile.shape}")
    values: Values = found[0, 0].astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise InferenceError("the model gave values that are not finite")
    return values


def _outlines(looked: _Looked, slide: Slide, tissue: float, thing: ThingSettings) -> Outlines:
    """Outline the components of a fitting area, from the top down, and measure them together."""
    rows, columns = slide.spacing
    square = rows * columns * 1e6
    polygons: list[FloatArray] = []
    areas: list[float] = []
    for polygon, pixels in _components(looked.found):
        area = pixels * square
        if thing.square_micrometres[0] <= area <= thing.square_micrometres[1]:
            polygons.append(polygon)
            areas.append(area)
    count = len(areas)
    measurements = [
        Measurement(name=NUMBER, value=float(count), unit=UNITLESS),
        Measurement(name=PER_AREA, value=count / tissue, unit=PER_SQUARE_MILLIMETRE),
    ]
    if count:
        median = float(np.median(areas))
        measurements.append(
            Measurement(name=MEDIAN_AREA, value=median, unit=SQUARE_MICROMETRE, derivation=MEDIAN)
        )
    return Outlines(
        key=thing.key,
        label=thing.label,
        category=thing.category.code(),
        type=thing.type.code(),
        colour=thing.colour,
        polygons=tuple(polygons),
        areas=np.array(areas, np.float64),
        measurements=tuple(measurements),
    )


def _components(found: BoolArray) -> Iterator[tuple[FloatArray, int]]:
    """Yield the outline of each component, as (column, row) corners, and its number of pixels."""
    labels, count = label(found)
    counts: npt.NDArray[np.int64] = sizes(labels, count)
    boxes = ndimage.find_objects(labels)
    for number, box in enumerate(boxes, 1):
        if box is None:
            continue
        rows, columns = box
        outline = outline_of(labels[box] == number)
        if area_of(outline) > 0:
            yield outline + np.array([columns.start, rows.start]), int(counts[number])
