from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from engines.base import Array, Arrays, Engine, Session
from engines.errors import InferenceError, ModelInvalidError
from engines.findings import Analysis, Measurement, Outcome, Refusal, Segment
from engines.tasks.segmentation import Segmentation, SegmentationSettings
from tests.factories import CtOptions, instance_files, make_ct_series, make_enhanced_ct

LIMIT = "Contrast medium, metal and calcifications above 150 HU are counted as bone."


def run(engine: Engine, folder: Path, **options: Unpack[CtOptions]) -> Outcome:
    return engine.run(instance_files(make_ct_series(folder, **options)))


def analysed(outcome: Outcome) -> Analysis:
    assert isinstance(outcome, Analysis), outcome
    return outcome


def segments(outcome: Outcome) -> Mapping[str, Segment]:
    return {segment.key: segment for segment in analysed(outcome).findings}


def value(segment: Segment, code: str) -> Measurement:
    (found,) = [m for m in segment.measurements if m.name.value == code]
    return found


VOLUME, ATTENUATION, AREA = "118565006", "112031", "42798000"


def test_every_tissue_of_the_phantom_is_found_and_measured(engine: Engine, tmp_path: Path) -> None:
    outcome = run(engine, tmp_path)
    found = segments(outcome)
    assert list(found) == ["air", "adipose-tissue", "soft-tissue", "bone"]
    means = {key: value(segment, ATTENUATION).value for key, segment in found.items()}
    assert means == pytest.approx(
        {"air": -850, "adipose-tissue": -100, "soft-tissue": 50, "bone": 500}, rel=0.15
    )
    assert analysed(outcome).limits == (LIMIT,)
    assert len(analysed(outcome).sought) == 4


def test_volumes_are_those_of_the_phantom(engine: Engine, tmp_path: Path) -> None:
    files = make_ct_series(tmp_path, rows=256, columns=256, spacing=(5.0, 1.5, 1.5))
    stored = np.stack([dcmread(path).pixel_array for path in files]).astype(int) - 1024
    voxel = 5.0 * 1.5 * 1.5 / 1000
    found = segments(engine.run(instance_files(files)))
    for key, hu in {"air": -850, "bone": 500}.items():
        expected = np.count_nonzero(stored == hu) * voxel
        assert value(found[key], VOLUME).value == pytest.approx(expected, rel=0.1)
    body = sum(value(segment, VOLUME).value for segment in found.values())
    wide, deep = 0.40 * 256 * 1.5, 0.28 * 256 * 1.5
    assert body == pytest.approx(np.pi * wide * deep * 100 / 1000, rel=0.02)


def test_masks_lie_on_the_grid_and_never_overlap(engine: Engine, tmp_path: Path) -> None:
    outcome = analysed(run(engine, tmp_path))
    masks = [segment.mask for segment in outcome.findings]
    assert all(mask.shape == outcome.grid.shape and mask.dtype == np.bool_ for mask in masks)
    assert np.sum(masks, axis=0).max() == 1
    assert len(outcome.sources) == outcome.grid.shape[0]


def test_the_table_and_the_air_around_are_no_part_of_the_body(
    engine: Engine, tmp_path: Path
) -> None:
    body = np.any([s.mask for s in segments(run(engine, tmp_path)).values()], axis=0)
    rows = np.flatnonzero(body.any(axis=(0, 2)))
    # The phantom's half depth is 0.28 of 128 rows about row 63.5; its table starts 1.17 times that.
    assert rows.min() >= 27
    assert rows.max() <= 100


def test_areas_are_measured_on_the_slice_with_most_soft_tissue(
    engine: Engine, tmp_path: Path
) -> None:
    found = segments(run(engine, tmp_path))
    areas = found["soft-tissue"].mask.sum(axis=(1, 2))
    area = value(found["soft-tissue"], AREA)
    assert area.slice_index == int(np.argmax(areas))
    assert area.value == pytest.approx(areas.max() * 9 / 100)
    assert area.unit.value == "cm2"
    bone = value(found["bone"], AREA)
    assert bone.slice_index == area.slice_index
    assert not any(m.name.value == AREA for m in found["air"].measurements)


def test_a_single_slice_has_areas_but_no_volumes(engine: Engine, tmp_path: Path) -> None:
    outcome = run(engine, tmp_path, slices=1)
    for segment in segments(outcome).values():
        assert {m.name.value for m in segment.measurements} == {ATTENUATION, AREA}
        assert value(segment, AREA).slice_index == 0
    assert "The series has a single slice: no volumes are given." in analysed(outcome).limits


def test_units_and_derivations_are_coded(engine: Engine, tmp_path: Path) -> None:
    segment = segments(run(engine, tmp_path))["bone"]
    codes = {
        (m.name.value, m.unit.value, m.derivation.value if m.derivation else None)
        for m in segment.measurements
    }
    assert codes == {
        (VOLUME, "ml", None),
        (ATTENUATION, "[hnsf'U]", "373098007"),
        (AREA, "cm2", None),
    }


def test_an_enhanced_image_gives_the_same_findings(engine: Engine, tmp_path: Path) -> None:
    classic = segments(run(engine, tmp_path / "classic"))
    path = make_enhanced_ct(tmp_path / "enhanced.dcm")
    enhanced = engine.run(instance_files([path]))
    for key, segment in segments(enhanced).items():
        assert np.array_equal(segment.mask, classic[key].mask)
    assert {source.sop_instance_uid for source in analysed(enhanced).sources} == {
        instance_files([path])[0].sop_instance_uid
    }


def test_a_second_run_gives_the_same_findings(engine: Engine, tmp_path: Path) -> None:
    files = instance_files(make_ct_series(tmp_path, noise=15))
    first, second = segments(engine.run(files)), segments(engine.run(files[::-1]))
    for key, segment in first.items():
        assert np.array_equal(segment.mask, second[key].mask)
        assert segment.measurements == second[key].measurements


def test_padding_is_never_labelled(engine: Engine, tmp_path: Path) -> None:
    def pad(dataset: Dataset, _index: int) -> None:
        values = dataset.pixel_array.copy()
        values[:, :50] = -2000
        dataset.PixelData = values.tobytes()
        dataset.add_new("PixelPaddingValue", "SS", -2000)

    outcome = run(engine, tmp_path, modify=pad)
    for segment in segments(outcome).values():
        assert not segment.mask[:, :, :50].any()
    assert any(
        "edge of the field of view on 20 of 20" in limit for limit in analysed(outcome).limits
    )


def test_values_no_scanner_measures_are_no_patient_whatever_the_header_says(
    engine: Engine, tmp_path: Path
) -> None:
    def pad(dataset: Dataset, _index: int) -> None:
        values = dataset.pixel_array.copy()
        values[:, :50] = -2000
        dataset.PixelData = values.tobytes()

    for segment in segments(run(engine, tmp_path, modify=pad)).values():
        assert not segment.mask[:, :, :50].any()


def test_a_series_without_a_body_is_refused_with_what_was_looked_at(
    engine: Engine, tmp_path: Path
) -> None:
    def empty(dataset: Dataset, _index: int) -> None:
        dataset.PixelData = np.full((128, 128), 24, "<i2").tobytes()

    outcome = run(engine, tmp_path, modify=empty)
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "NO_BODY"
    assert len(outcome.sources) == 20


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"missing": (7,)}, "MISSING_SLICES"),
        ({"tilt_degrees": 12.0}, "GANTRY_TILT"),
        ({"orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)}, "PLANE"),
        ({"spacing": (12.0, 3.0, 3.0)}, "SLICE_DISTANCE"),
    ],
)
def test_unfit_series_are_refused_with_their_sources(
    engine: Engine, tmp_path: Path, options: CtOptions, reason: str
) -> None:
    outcome = engine.run(instance_files(make_ct_series(tmp_path, **options)))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == reason
    assert len(outcome.sources) == 20 - len(options.get("missing", ()))


def test_an_arm_that_was_left_out_is_told(engine: Engine, tmp_path: Path) -> None:
    def arm(dataset: Dataset, _index: int) -> None:
        values = dataset.pixel_array.copy()
        values[28:100, 1:10] = 1064
        dataset.PixelData = values.tobytes()

    outcome = analysed(run(engine, tmp_path, modify=arm))
    assert any(limit.startswith("Parts that do not hang together") for limit in outcome.limits)


# ------------------------------------------------------------------ what a model may do wrong


class Scripted(Session):
    """A session that answers what it is told to."""

    def __init__(self, name: str, dtype: type[np.generic], shape: tuple[int, ...] | None) -> None:
        self._name, self._dtype, self._shape = name, dtype, shape

    def run(self, inputs: Arrays) -> Arrays:
        """Answer with an array of zeros."""
        shape = self._shape or inputs["image"].shape
        answer: Array = np.zeros(shape, self._dtype)
        return {self._name: answer}

    def close(self) -> None:
        """Hold nothing."""


@pytest.mark.parametrize(
    ("session", "error"),
    [
        (Scripted("other", np.uint8, None), ModelInvalidError),
        (Scripted("labels", np.float32, None), InferenceError),
        (Scripted("labels", np.uint8, (1, 1, 4, 4)), InferenceError),
    ],
)
def test_a_model_that_answers_something_else_is_an_error(
    engine: Engine, tmp_path: Path, session: Session, error: type[Exception]
) -> None:
    with pytest.raises(error):
        run(Engine(engine.package, engine.task, session), tmp_path, slices=2)


def test_a_model_that_finds_nothing_gives_an_analysis_without_findings(
    engine: Engine, tmp_path: Path
) -> None:
    nothing = Engine(engine.package, engine.task, Scripted("labels", np.uint8, None))
    outcome = analysed(run(nothing, tmp_path))
    assert outcome.findings == ()
    assert len(outcome.sought) == 4


# ------------------------------------------------------------------ settings


def test_small_components_go_to_another_segment(engine: Engine, tmp_path: Path) -> None:
    def speckle(dataset: Dataset, index: int) -> None:
        if index == 10:
            values = dataset.pixel_array.copy()
            values[45:50, 62:67] = 1024 + 400
            dataset.PixelData = values.tobytes()

    files = instance_files(make_ct_series(tmp_path, modify=speckle))
    kept = segments(engine.run(files))
    assert kept["bone"].mask[10, 47, 64]
    settings = engine.package.settings
    assert isinstance(settings, SegmentationSettings)
    stricter = tuple(
        segment.model_copy(update={"smallest_ml": 2.0}) if segment.key == "bone" else segment
        for segment in settings.segments
    )
    package = replace(engine.package, settings=settings.model_copy(update={"segments": stricter}))
    moved = segments(Engine(package, Segmentation(), engine.session).run(files))
    assert not moved["bone"].mask[10, 47, 64]
    assert moved["soft-tissue"].mask[10, 47, 64]


def test_the_number_of_slices_at_once_does_not_change_the_answer(
    engine: Engine, tmp_path: Path
) -> None:
    files = instance_files(make_ct_series(tmp_path, slices=7, noise=10))
    expected = segments(engine.run(files))
    package = replace(
        engine.package, settings=engine.package.settings.model_copy(update={"slices_at_once": 3})
    )
    found = segments(Engine(package, Segmentation(), engine.session).run(files))
    for key, segment in expected.items():
        assert np.array_equal(segment.mask, found[key].mask)


def test_what_cannot_be_true_is_held_back_with_what_was_found(
    engine: Engine, tmp_path: Path
) -> None:
    files = instance_files(make_ct_series(tmp_path, slices=6))
    found = segments(engine.run(files))
    settings = engine.package.settings
    assert isinstance(settings, SegmentationSettings)
    doubted = tuple(
        segment.model_copy(update={"plausible_ml": (0.0, 1.0), "inside_body": 0.99})
        for segment in settings.segments
    )
    package = replace(engine.package, settings=settings.model_copy(update={"segments": doubted}))
    outcome = Engine(package, Segmentation(), engine.session).run(files)
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "IMPLAUSIBLE"
    assert outcome.detail.startswith("Lung and air inside the body would have")
    assert " % of " not in outcome.detail
    assert outcome.detail.endswith("and 1 more")
    assert outcome.held is not None
    held = segments(outcome.held)
    assert {key: value(segment, VOLUME) for key, segment in held.items()} == {
        key: value(segment, VOLUME) for key, segment in found.items()
    }


def test_inside_the_body_is_asked_only_where_the_body_is_found(engine: Engine) -> None:
    settings = engine.package.settings
    assert isinstance(settings, SegmentationSettings)
    table = settings.model_dump()
    table["body"] = None
    table["segments"][0]["inside_body"] = 0.5
    with pytest.raises(ValueError, match="inside_body asks for the table body"):
        SegmentationSettings.model_validate(table)
