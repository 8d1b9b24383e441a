"""Real series. Where ../shared/data is absent these are named as not run; see `shared_data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from engines.base import Engine
from engines.findings import Analysis, Outcome, Refusal
from engines.images import InstanceFile
from engines.refusals import SeriesRefusedError
from engines.series import read_volume
from tests.factories import instance_files

Find = Callable[[str], Path]
LOSSLESS = (
    "CTImage.dcm",
    "CTImage.dcm_BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2.dcm",
    "CTImage.dcm_DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99.dcm",
    "CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm",
    "CTImage.dcm_JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80.dcm",
    "CTImage.dcm_JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70.dcm",
    "CTImage.dcm_JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57.dcm",
    "CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm",
    "CTImage.dcm_LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2.dcm",
    "CTImage.dcm_RLELosslessTransferSyntax_1.2.840.10008.1.2.5.dcm",
)


def files_in(folder: Path) -> list[InstanceFile]:
    return instance_files(sorted(folder.rglob("*.dcm")))


def measured(outcome: Outcome, name: str) -> dict[str, float]:
    assert isinstance(outcome, Analysis), outcome
    return {
        segment.key: measurement.value
        for segment in outcome.findings
        for measurement in segment.measurements
        if measurement.name.meaning == name
    }


def test_a_chest_and_abdomen_ct_gives_plausible_volumes(engine: Engine, shared_data: Find) -> None:
    outcome = engine.run(files_in(shared_data("petct_acrin_042/ct")))
    volumes = measured(outcome, "Volume")
    assert 5600 < volumes["air"] < 6600, "lungs of about 5.8 L, and gas in the bowel"
    assert 9000 < volumes["adipose-tissue"] < 15000
    assert 11000 < volumes["soft-tissue"] < 18000
    assert 1500 < volumes["bone"] < 3000
    assert -850 < measured(outcome, "Attenuation Coefficient")["air"] < -700
    assert isinstance(outcome, Analysis)
    body = np.any([segment.mask for segment in outcome.findings], axis=0)
    assert not body[:, 400:].any(), "the table lies below row 400"
    assert len(outcome.sources) == 135


def test_an_upper_abdomen_ct_gives_plausible_areas(engine: Engine, shared_data: Find) -> None:
    outcome = engine.run(files_in(shared_data("ct_abdomen_totalseg")))
    areas = measured(outcome, "Area")
    assert 450 < areas["soft-tissue"] < 600
    assert 100 < areas["adipose-tissue"] < 220
    assert 20 < areas["bone"] < 60
    assert areas["air"] < 30


def test_a_tilted_head_ct_is_refused(engine: Engine, shared_data: Find) -> None:
    outcome = engine.run(files_in(shared_data("ct_head_gantry_tilt/ge")))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "GANTRY_TILT"
    assert "18.5 degrees" in outcome.detail
    assert len(outcome.sources) == 28


@pytest.mark.parametrize("name", LOSSLESS)
def test_one_slice_in_every_lossless_syntax_gives_the_same_values(
    shared_data: Find, name: str
) -> None:
    folder = shared_data("transfer_syntaxes_ct")
    expected = read_volume(instance_files([folder / "CTImage.dcm"]))
    volume = read_volume(instance_files([folder / name]))
    assert np.array_equal(volume.voxels, expected.voxels)
    assert volume.unit == "HU"
    assert -1100 < np.percentile(volume.voxels[volume.voxels > -1500], 1) < -900


@pytest.mark.parametrize(
    "name",
    [
        "CTImage.dcm_JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91.dcm",
        "CTImage.dcm_JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81.dcm",
        "CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm",
    ],
)
def test_lossy_slices_are_refused(engine: Engine, shared_data: Find, name: str) -> None:
    outcome = engine.run(instance_files([shared_data("transfer_syntaxes_ct") / name]))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "LOSSY"


def test_a_perfusion_map_is_read_but_is_not_in_hounsfield_units(
    engine: Engine, shared_data: Find
) -> None:
    files = instance_files([shared_data("enhanced_and_htj2k/eCT_Supplemental.dcm")])
    volume = read_volume(files)
    assert volume.grid.shape == (2, 512, 512)
    assert volume.grid.spacing == pytest.approx((10.0, 0.388672, 0.388672))
    assert volume.unit == ""
    assert sorted(source.frame or 0 for source in volume.sources) == [1, 2]
    outcome = engine.run(files)
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "IMAGE_TYPE"


def test_an_enhanced_mr_volume_has_the_geometry_of_its_frames(
    engine: Engine, shared_data: Find
) -> None:
    path = shared_data("mr_enhanced_t1_dti/anat-T1w_acq-tfl_5.dcm")
    volume = read_volume(instance_files([path]))
    assert volume.grid.shape == (96, 128, 128)
    assert volume.grid.spacing == pytest.approx((2.0, 2.0, 2.0), abs=1e-3)
    dataset = dcmread(path)
    frames = dataset.PerFrameFunctionalGroupsSequence
    pixels = dataset.pixel_array
    for at, source in enumerate(volume.sources):
        assert source.frame is not None
        position = frames[source.frame - 1].PlanePositionSequence[0].ImagePositionPatient
        assert volume.grid.positions[at] == pytest.approx([float(x) for x in position])
        assert np.array_equal(volume.voxels[at], pixels[source.frame - 1])
    outcome = engine.run(instance_files([path]))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "MODALITY"


@pytest.mark.parametrize("name", ["dose_report_rgb_sc.dcm", "scout.dcm"])
def test_dose_reports_and_scouts_never_reach_an_engine(
    engine: Engine, shared_data: Find, name: str
) -> None:
    outcome = engine.run(instance_files([shared_data("ct_head_gantry_tilt/philips") / name]))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value in {"SECONDARY_ONLY", "LOCALIZER_ONLY"}


# ------------------------------------------------------------------ with pydicom's own files


def bundled(name: str) -> list[InstanceFile]:
    return instance_files([Path(str(get_testdata_file(name)))])


def test_the_ct_that_comes_with_pydicom_is_read() -> None:
    volume = read_volume(bundled("CT_small.dcm"))
    assert volume.grid.shape == (1, 128, 128)
    assert volume.unit == "HU"
    expected = dcmread(str(get_testdata_file("CT_small.dcm"))).pixel_array.astype(int) - 1024
    assert np.array_equal(volume.voxels[0], expected)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MR_truncated.dcm", "PIXELS_SHORT"),
        ("rtplan.dcm", "NO_PIXEL_DATA"),
        ("rtdose.dcm", "NO_GEOMETRY"),
        ("test-SR.dcm", "NO_PIXEL_DATA"),
        ("SC_rgb_small_odd.dcm", "SECONDARY_ONLY"),
        ("badVR.dcm", "UNREADABLE"),
    ],
)
def test_odd_objects_are_refused_with_a_code(name: str, reason: str) -> None:
    with pytest.raises(SeriesRefusedError) as caught:
        read_volume(bundled(name))
    assert caught.value.reason.value == reason
