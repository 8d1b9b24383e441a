from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydicom.dataset import Dataset

from engines.base import Engine, open_engine
from engines.findings import Outcome, Refusal, SlideAnalysis
from engines.importing import import_model
from engines.package import PackageError
from tests.factories import instance_files
from tests.slides import NUCLEI, make_slide

ANSWERS = Path(__file__).parents[3] / "config" / "engines" / "nuclei_unet2d_broad" / "engine.toml"


def dark_net(path: Path) -> Path:
    """Write a net that finds what is more than 1.5 deviations above the mean of the tissue."""
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["input.1", "limit"], ["above"]),
            helper.make_node("Mul", ["above", "steep"], ["82"]),
        ],
        "dark",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 1, 512, 512])],
        [helper.make_tensor_value_info("82", TensorProto.FLOAT, [1, 1, 512, 512])],
        [
            numpy_helper.from_array(np.array(1.5, np.float32), "limit"),
            numpy_helper.from_array(np.array(10, np.float32), "steep"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))
    return path


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("slide")
    answers = folder / "answers.toml"
    answers.write_text(ANSWERS.read_text().replace("least_tissue = 0.01", "least_tissue = 0.001"))
    package = import_model(dark_net(folder / "net.onnx"), answers, folder / "package")
    with open_engine(package) as opened:
        yield opened


def run(engine: Engine, *paths: Path) -> Outcome:
    return engine.run(instance_files(paths))


def test_nuclei_are_outlined_where_they_lie_on_the_slide(engine: Engine, tmp_path: Path) -> None:
    """WSM-02: in tiles that lie row by row, 4 across."""
    outcome = run(engine, make_slide(tmp_path / "slide.dcm"))
    assert isinstance(outcome, SlideAnalysis)
    (nuclei,) = outcome.findings
    assert len(nuclei.polygons) == len(NUCLEI)
    for polygon, (row, column) in zip(nuclei.polygons, NUCLEI, strict=True):
        assert polygon.mean(axis=0) == pytest.approx([column + 4, row + 4], abs=0.5)
    assert nuclei.areas == pytest.approx([8 * 8 / 4] * 4, rel=0.4)
    values = {item.name.value: item.value for item in nuclei.measurements}
    assert values["COUNT"] == 4
    assert values["PER_AREA"] == pytest.approx(4 / (68 * 90 * 0.0005**2), rel=0.1)


def test_things_too_small_for_nuclei_are_nothing_found(engine: Engine, tmp_path: Path) -> None:
    outcome = run(engine, make_slide(tmp_path / "slide.dcm", side=2))
    assert isinstance(outcome, SlideAnalysis)
    assert not outcome.findings
    assert [code.meaning for code in outcome.sought] == ["Nucleus"]


def glass(dataset: Dataset) -> None:
    dataset.PixelData = b"\xf5" * len(dataset.PixelData)


def sparse(dataset: Dataset) -> None:
    dataset.DimensionOrganizationType = "TILED_SPARSE"


def larger(dataset: Dataset) -> None:
    dataset.TotalPixelMatrixRows = 200


def endless(dataset: Dataset) -> None:
    dataset.TotalPixelMatrixRows = dataset.TotalPixelMatrixColumns = 1 << 20


def short(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:4000]


def without_spacing(dataset: Dataset) -> None:
    del dataset.SharedFunctionalGroupsSequence


def spaced(size: float) -> object:
    def change(dataset: Dataset) -> None:
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.PixelSpacing = [size, size]

    return change


def sixteen_bits(dataset: Dataset) -> None:
    dataset.BitsStored, dataset.HighBit = 7, 6


def a_label(dataset: Dataset) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]


@pytest.mark.parametrize(
    ("modify", "code"),
    [
        (glass, "NO_BODY"),
        (sparse, "NO_GEOMETRY"),
        (larger, "INCOMPLETE"),
        (endless, "TOO_LARGE"),
        (short, "PIXELS_DAMAGED"),
        (without_spacing, "NO_GEOMETRY"),
        (spaced(0.002), "PIXEL_SIZE"),
        (spaced(0.0001), "PIXELS_FINE"),
        (sixteen_bits, "PIXEL_FORMAT"),
        (a_label, "IMAGE_TYPE"),
    ],
)
def test_a_slide_that_is_not_fit_is_refused(
    modify: object, code: str, engine: Engine, tmp_path: Path
) -> None:
    """WSM-01 (a label), WSM-02 (TILED_SPARSE), WSM-04 (more pixels than memory holds)."""
    assert callable(modify)
    outcome = run(engine, make_slide(tmp_path / "slide.dcm", modify=modify))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == code


def test_of_several_levels_the_finest_that_fits_is_read(engine: Engine, tmp_path: Path) -> None:
    """WSM-01: by pixel spacing, not by the order of files."""
    coarse, fit = spaced(0.004), spaced(0.0006)
    assert callable(coarse)
    assert callable(fit)
    levels = [
        make_slide(tmp_path / "coarse.dcm", modify=coarse),
        make_slide(tmp_path / "second.dcm", modify=fit),
        make_slide(tmp_path / "finest.dcm"),
    ]
    outcome = run(engine, *levels)
    assert isinstance(outcome, SlideAnalysis)
    (source,) = instance_files(levels[2:])
    assert [item.sop_instance_uid for item in outcome.sources] == [source.sop_instance_uid]


def test_a_halo_that_leaves_nothing_of_a_tile_is_refused(tmp_path: Path) -> None:
    answers = tmp_path / "answers.toml"
    answers.write_text(ANSWERS.read_text().replace("halo = 32", "halo = 256"))
    with pytest.raises(PackageError, match="halo leaves nothing of a tile"):
        import_model(dark_net(tmp_path / "net.onnx"), answers, tmp_path / "package")
