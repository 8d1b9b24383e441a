"""Classification: says of each image of a series which concepts it shows, and how surely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, StringConstraints, model_validator

from engines.base import Arrays, Session, Task, Work, analyse_series
from engines.errors import InferenceError, ModelInvalidError
from engines.findings import Classification, Code, ImageAnalysis, Measurement, Outcome
from engines.manifest import (
    CodedConcept,
    EnginePackage,
    Name,
    ParityTable,
    Sentence,
    Table,
    TaskSettings,
)
from engines.networks import activated
from engines.phantoms import picture
from engines.preprocessing import changed
from engines.presentation import Picture, presented
from engines.recipe import Count, Crop, Intensity, Share, TensorName
from engines.resampling import Lattice, Values, resample, resized
from engines.series import Series
from engines.suitability import unfit_images, unfit_series

CERTAINTY: Final = Code("111012", "DCM", "Certainty of Finding")
PERCENT: Final = Code("%", "UCUM", "Percent")


class ClassSettings(Table):
    """One concept: where the net gives it, and from which certainty on it counts as found."""

    key: Name
    index: Annotated[int, Field(ge=0, le=4095)]
    label: Annotated[str, StringConstraints(min_length=2, max_length=64)]
    type: CodedConcept
    region: CodedConcept | None = None
    threshold: Share


class PictureSettings(Table):
    """How images come to the net: presented as 0..255, resized to [rows, columns], then changed.

    Neither aspect nor side is kept or looked at. `interpolation` as of volumes.
    """

    matrix: tuple[Count, Count]
    interpolation: Literal["nearest", "linear", "cubic", "area"] = "linear"
    intensity: tuple[Intensity, ...] = ()

    @model_validator(mode="after")
    def _keeps_its_size(self) -> PictureSettings:
        if any(isinstance(step, Crop) for step in self.intensity):
            raise ValueError("the step crop is for volumes")
        return self


class NetSettings(Table):
    """The net: float32 [n, 1, row, column] in, [n, class] out, and what makes shares of that."""

    input: TensorName
    output: TensorName
    activation: Literal["none", "sigmoid", "softmax"]


class ClassificationSettings(TaskSettings):
    """The table `[classification]`. `limits` are sentences that stand beside every result."""

    preprocessing: PictureSettings
    inference: NetSettings
    classes: Annotated[tuple[ClassSettings, ...], Field(min_length=1)]
    limits: tuple[Sentence, ...] = ()

    @model_validator(mode="after")
    def _tells_its_classes_apart(self) -> ClassificationSettings:
        keys = {item.key for item in self.classes}
        codes = {(item.type.scheme, item.type.value) for item in self.classes}
        indices = {item.index for item in self.classes}
        if min(len(keys), len(codes), len(indices)) < len(self.classes):
            raise ValueError("two classes share a key, a code or an index")
        return self


class ImageClassification(Task):
    """Concepts in single images, each with its certainty in percent."""

    name: ClassVar[str] = "classification"
    settings_type: ClassVar[type[TaskSettings]] = ClassificationSettings

    def analyse(self, work: Work) -> Outcome:
        """Read every image of the series, run the net on it, and keep what is above threshold."""
        return analyse_series(work, self._analyse)

    def _analyse(self, series: Series, work: Work, byte_limit: int) -> Outcome:
        wanted = work.package.manifest.suitability
        if refusal := unfit_series(series, wanted) or unfit_images(series, wanted):
            return refusal
        settings = _settings(work.package)
        work.progress("labelling")
        shares = [
            _shares(presented(frame, byte_limit=byte_limit), settings, work.session)
            for frame in series.frames
        ]
        return ImageAnalysis(
            sources=series.sources,
            findings=tuple(_findings(shares, settings)),
            sought=tuple(item.type.code() for item in settings.classes),
            limits=(*settings.limits, *series.notes),
        )

    def golden_inputs(self) -> Arrays:
        """Return a picture."""
        return picture()

    def compute(self, package: EnginePackage, session: Session, inputs: Arrays) -> Arrays:
        """Run on `voxels` [image, row, column] of 0 to 255; return `scores` [image, class]."""
        pictures = inputs["voxels"].astype(np.float32)
        settings = _settings(package)
        return {"scores": np.stack([_shares(item, settings, session) for item in pictures])}

    def disagreements(self, reference: Arrays, found: Arrays, allowed: ParityTable) -> list[str]:
        """Compare shares."""
        shares, wanted = (part["scores"].astype(np.float64) for part in (found, reference))
        gap = float(np.abs(shares - wanted).max())
        if gap <= allowed.probability:
            return []
        return [f"a probability differs by {gap:.3g}, {allowed.probability:g} is allowed"]


def _settings(package: EnginePackage) -> ClassificationSettings:
    if not isinstance(package.settings, ClassificationSettings):
        raise ModelInvalidError(f"{package.name}: its settings are not those of a classification")
    return package.settings


def _shares(picture: Picture, settings: ClassificationSettings, session: Session) -> Values:
    """Return what the net gives each class for one image, activated; float32 [class].

    Raises:
        ModelInvalidError, InferenceError: what the net takes or gives is not what the package says.
    """
    wanted, net = settings.preprocessing, settings.inference
    rows, columns = picture.shape
    source = Lattice(shape=(1, rows, columns), affine=np.eye(4))
    target = resized(source, (1, *wanted.matrix))
    values = resample(picture[None], source, target, wanted.interpolation, 0.0)
    values, _ = changed(values, target, wanted.intensity)
    outputs = session.run({net.input: np.ascontiguousarray(values[None], np.float32)})
    if net.output not in outputs:
        raise ModelInvalidError(f"the model has no output {net.output!r}")
    found = outputs[net.output]
    most = max(item.index for item in settings.classes)
    if found.ndim != 2 or len(found) != 1 or found.shape[1] <= most or found.dtype.kind != "f":  # noqa: PLR2004 - [image, class]
        raise InferenceError(f"the model gave {found.dtype} {found.shape} for one image")
    shares = activated(found[0].astype(np.float32), net.activation)
    if not np.isfinite(shares).all() or shares.min() < 0 or shares.max() > 1:
        raise InferenceError("the model gave shares that are not between 0 and 1")
    return shares


def _findings(
    shares: Sequence[Values], settings: ClassificationSettings
) -> Iterator[Classification]:
    for image, found in enumerate(shares):
        for item in settings.classes:
            share = float(found[item.index])
            if share >= item.threshold:
                yield Classification(
                    key=item.key,
                    label=item.label,
                    type=item.type.code(),
                    region=item.region.code() if item.region else None,
                    image=image,
                    measurements=(Measurement(name=CERTAINTY, value=100 * share, unit=PERCENT),),
                )
