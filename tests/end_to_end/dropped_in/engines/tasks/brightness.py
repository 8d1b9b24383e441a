"""Brightness: says of each image of a series whether it is bright."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engines.base import Array, Arrays, Session, Task, Work, analyse_series
from engines.errors import InferenceError, ModelInvalidError
from engines.findings import Classification, Code, ImageAnalysis, Measurement, Outcome
from engines.manifest import CodedConcept, EnginePackage, ParityTable, TaskSettings
from engines.phantoms import picture
from engines.presentation import Picture, presented
from engines.series import Series
from engines.suitability import unfit_images, unfit_series


class BrightnessSettings(TaskSettings):
    """The table `[brightness]`: from which mean of 0 to 255 on an image is what `concept` says."""

    input: str
    output: str
    above: float
    concept: CodedConcept
    measure: CodedConcept


class Brightness(Task):
    """Images that are bright, with their mean."""

    name: ClassVar[str] = "brightness"
    settings_type: ClassVar[type[TaskSettings]] = BrightnessSettings

    def analyse(self, work: Work) -> Outcome:
        """Look at every image of the series."""
        return analyse_series(work, self._analyse)

    def _analyse(self, series: Series, work: Work, byte_limit: int) -> Outcome:
        wanted = work.package.manifest.suitability
        if refusal := unfit_series(series, wanted) or unfit_images(series, wanted):
            return refusal
        settings = _settings(work.package)
        work.progress("looking")
        pictures = [presented(frame, byte_limit=byte_limit) for frame in series.frames]
        means = [_mean(item, settings, work.session) for item in pictures]
        return ImageAnalysis(
            sources=series.sources,
            findings=tuple(
                _finding(image, mean, settings)
                for image, mean in enumerate(means)
                if mean > settings.above
            ),
            sought=(settings.concept.code(),),
        )

    def golden_inputs(self) -> Arrays:
        """Return a picture."""
        return picture()

    def compute(self, package: EnginePackage, session: Session, inputs: Arrays) -> Arrays:
        """Return the `means` of `voxels` [image, row, column]."""
        pictures = inputs["voxels"].astype(np.float32)
        settings = _settings(package)
        return {"means": np.array([_mean(item, settings, session) for item in pictures])}

    def disagreements(self, reference: Arrays, found: Arrays, allowed: ParityTable) -> list[str]:
        """Compare means, relative to the largest."""
        means, wanted = (part["means"].astype(np.float64) for part in (found, reference))
        gap = float(np.abs(means - wanted).max() / np.abs(wanted).max())
        return [f"a mean differs by {gap:.3g} of the largest"] if gap > allowed.max_error else []


def _settings(package: EnginePackage) -> BrightnessSettings:
    if not isinstance(package.settings, BrightnessSettings):
        raise ModelInvalidError(f"{package.name}: its settings are not those of brightness")
    return package.settings


def _mean(values: Picture, settings: BrightnessSettings, session: Session) -> float:
    tensor = np.ascontiguousarray(values[None, None], np.float32)
    outputs = session.run({settings.input: tensor})
    if settings.output not in outputs:
        raise ModelInvalidError(f"the model has no output {settings.output!r}")
    found: Array = outputs[settings.output]
    if found.shape != (1,) or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise InferenceError(f"the model gave {found.dtype} {found.shape} for one image")
    return float(found[0])


def _finding(image: int, mean: float, settings: BrightnessSettings) -> Classification:
    measured = Measurement(
        name=settings.measure.code(), value=mean, unit=Code("1", "UCUM", "no units")
    )
    return Classification(
        key="bright",
        label="Bright",
        type=settings.concept.code(),
        image=image,
        measurements=(measured,),
    )
