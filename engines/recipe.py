"""How a net wants its images, and how it is run on them: data in `engine.toml`, no code.

A recipe says, in this order: on which lattice (orientation, spacing or matrix, size, padding),
with which values (steps of `intensity`), in which pattern (whole, windows, slices), and how
scores become labels (threshold or argmax).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from engines.manifest import Finite, Name, Positive, Table
from engines.resampling import directions

Count: TypeAlias = Annotated[int, Field(ge=1, le=4096)]
Axis: TypeAlias = Literal[0, 1, 2]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
TensorName: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=128)]


def _oriented(text: str) -> str:
    directions(text)
    return text


Orientation: TypeAlias = Annotated[str, AfterValidator(_oriented)]


class Clip(Table):
    """Hold values between `low` and `high`."""

    step: Literal["clip"]
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _in_order(self) -> Clip:
        if self.low >= self.high:
            raise ValueError("low is not below high")
        return self


class Linear(Table):
    """Subtract, then divide."""

    step: Literal["linear"]
    subtract: Finite = 0.0
    divide: Positive = 1.0


class Quantiles(Table):
    """Map the quantiles `low` and `high` of the values to 0 and `top`.

    `low` absent: the value 0. `of` chooses which values are looked at; `located` are those of the
    image that the first of two nets was given, before its own steps. `clip` holds the result
    between 0 and `top`.
    """

    step: Literal["quantiles"]
    low: Share | None = None
    high: Share
    of: Literal["all", "nonzero", "located"] = "all"
    top: Positive = 1.0
    clip: bool = False


class Normalise(Table):
    """Subtract the mean and divide by the standard deviation: of the volume, or of each slice.

    With `keep_zero` values that are 0 stay so.
    """

    step: Literal["normalise"]
    of: Literal["all", "nonzero", "slice"] = "all"
    keep_zero: bool = False


class Crop(Table):
    """Cut the image to where its values are above `above`, with `margin` voxels around.

    Steps after it see what is left only. An image without such a value stays whole.
    """

    step: Literal["crop"]
    above: Finite
    margin: Annotated[int, Field(ge=0, le=256)] = 0


Intensity: TypeAlias = Annotated[
    Clip | Linear | Quantiles | Normalise | Crop, Field(discriminator="step")
]


class Preprocessing(Table):
    """The lattice and the values of the model's image.

    `nonzero` cuts the series to the box of what is not 0 before anything else. `orientation` names
    where the array's axes 0, 1, 2 point in the patient; without it they stay [slice, row, column],
    in the order of `axes`. `align` "patient" turns an oblique series upright, "nearest" reorders
    and flips axes only. `spacing` in mm, or voxels over the same field of view: `matrix` [rows,
    columns] of each slice, `shape` of all axes. Where a spacing does not fit the field of view,
    `anchor` says what stays: spacing and `centre`, the `field` of view, or spacing and the `first`
    voxel. With `apart` an axis along which voxels are more than three times as long as along
    another, before or after, is resampled by itself, to the nearest plane. `size` crops or pads
    around the middle, `multiple_of` pads. `fill` takes the place of what was not imaged, in the
    unit of the series. `on` says whether the steps of `intensity` are taken on the source's lattice
    or on the model's.
    """

    nonzero: bool = False
    orientation: Orientation | None = None
    axes: tuple[Axis, Axis, Axis] = (0, 1, 2)
    align: Literal["nearest", "patient"] = "nearest"
    spacing: tuple[Positive, Positive, Positive] | None = None
    anchor: Literal["centre", "field", "first"] = "centre"
    apart: bool = False
    matrix: tuple[Count, Count] | None = None
    shape: tuple[Count, Count, Count] | None = None
    size: tuple[Count, Count, Count] | None = None
    multiple_of: tuple[Count, Count, Count] = (1, 1, 1)
    interpolation: Literal["nearest", "linear", "cubic", "area"] = "linear"
    fill: Finite = 0.0
    intensity: tuple[Intensity, ...] = ()
    on: Literal["model", "source"] = "model"

    @model_validator(mode="after")
    def _has_one_lattice(self) -> Preprocessing:
        if self.matrix is not None and (self.spacing is not None or self.orientation is not None):
            raise ValueError("matrix is of the slices as they are: no spacing, no orientation")
        if self.shape is not None and (self.spacing, self.matrix) != (None, None):
            raise ValueError("shape takes the place of spacing and matrix")
        if self.interpolation == "area" and self.matrix is None:
            raise ValueError("area interpolation needs matrix")
        if sorted(self.axes) != [0, 1, 2]:
            raise ValueError("axes does not name each axis once")
        if self.orientation is not None and self.axes != (0, 1, 2):
            raise ValueError("an orientation takes the place of axes")
        return self

    @model_validator(mode="after")
    def _is_turned_or_not(self) -> Preprocessing:
        if self.align == "nearest":
            return self
        if self.orientation is None:
            raise ValueError('align = "patient" needs an orientation')
        if self.apart or self.anchor != "centre" or self.shape is not None:
            raise ValueError('shape, anchor and apart need align = "nearest"')
        return self

    @model_validator(mode="after")
    def _crops_on_the_model(self) -> Preprocessing:
        if self.on == "source" and any(isinstance(step, Crop) for step in self.intensity):
            raise ValueError('the step crop needs on = "model"')
        return self


class Inference(Table):
    """How the net is run.

    `whole`: once, on [1, 1, 0, 1, 2]. `windows`: on windows of that size, blended evenly or by a
    Gaussian around the middle, or around the voxel beside it as nnU-Net has it; they begin at even
    distances or, `fixed`, as far apart as the overlap says and the last one flush with the end. An
    image smaller than a window is padded with its least value at the far end, or with `zero` around
    the middle. `slices`: on [n, 1, 1, 2] along axis 0, at most `slices_at_once` at a time. `mirror`
    names the axes along which mirrored images are averaged in. The output has the classes on axis
    1; `activation` is applied to it after blending. `back` says what is carried back to the source:
    labels, to the nearest voxel, or scores, interpolated, of which labels are made there.
    """

    input: TensorName
    output: TensorName
    pattern: Literal["whole", "windows", "slices"]
    window: tuple[Count, Count, Count] | None = None
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    blend: Literal["gaussian", "gaussian-on-voxel", "even"] = "gaussian"
    steps: Literal["even", "fixed"] = "even"
    pad: Literal["least", "zero"] = "least"
    mirror: tuple[Literal[0, 1, 2], ...] = ()
    slices_at_once: Annotated[int, Field(ge=1, le=1024)] = 8
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    decision: Literal["argmax", "threshold"]
    threshold: Finite = 0.5
    back: Literal["labels", "scores"] = "labels"

    @model_validator(mode="after")
    def _pattern_is_whole(self) -> Inference:
        if (self.window is not None) != (self.pattern == "windows"):
            raise ValueError('window belongs to pattern = "windows", and to no other')
        if len(set(self.mirror)) != len(self.mirror):
            raise ValueError("mirror names an axis twice")
        if self.pattern == "slices" and 0 in self.mirror:
            raise ValueError('with pattern = "slices" only the axes 1 and 2 can be mirrored')
        return self


class Locate(Table):
    """The first of two nets: it finds the box that the second one is given.

    `model` names it in `[model.parts]`. Of the largest component of what it labels `label`, the
    box holds the planes of which more than `share` is labelled, and reaches `margin` times its
    size further on each side.
    """

    model: Name
    preprocessing: Preprocessing
    inference: Inference
    label: Annotated[int, Field(ge=1, le=255)] = 1
    share: Share = 0.0
    margin: Annotated[float, Field(ge=0, le=2)] = 0.0

    @model_validator(mode="after")
    def _keeps_the_field_of_view(self) -> Locate:
        wanted = self.preprocessing
        if wanted.align == "patient" or wanted.size is not None or wanted.multiple_of != (1, 1, 1):
            raise ValueError("the whole field of view is looked at: no size, padding or turning")
        if any(isinstance(step, Crop) for step in wanted.intensity):
            raise ValueError("the whole field of view is looked at: no step crop")
        return self


class Recipe(Table):
    """The table `recipe` of a task. With `locate` the net is given a box of the image only."""

    preprocessing: Preprocessing
    inference: Inference
    locate: Locate | None = None

    @model_validator(mode="after")
    def _measures_what_there_is(self) -> Recipe:
        steps = [*self.preprocessing.intensity]
        if self.locate is None and any(getattr(step, "of", "") == "located" for step in steps):
            raise ValueError('of = "located" needs locate')
        if self.locate is not None and self.preprocessing.align == "patient":
            raise ValueError('locate needs align = "nearest"')
        return self
