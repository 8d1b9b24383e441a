from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydicom.dataset import Dataset

from engines.base import Engine, open_engine
from engines.errors import EngineError, InferenceError
from engines.findings import ImageAnalysis, Outcome, Refusal
from engines.importing import import_model
from engines.package import PackageError
from engines.verify import verify_package
from tests.factories import instance_files, make_ct_series
from tests.radiographs import make_radiograph

ANSWERS = Path(__file__).parents[3] / "config" / "engines" / "cxr_nih_mobilenetv3" / "engine.toml"
CLASSES = 15
EFFUSION, PNEUMOTHORAX = 3, 5


def brightness_net(path: Path, *, classes: int = CLASSES, at: int = EFFUSION) -> Path:
    """Write a net that gives one class the mean of the image, a hundredfold, and others nothing."""
    weights = np.zeros((1, classes), np.float32)
    weights[0, at] = 100
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["output"]),
        ],
        "brightness",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1, 224, 224])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))
    return path


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    package = import_model(brightness_net(tmp_path / "net.onnx"), ANSWERS, tmp_path / "package")
    with open_engine(package) as opened:
        yield opened


def dark(dataset: Dataset) -> None:
    dataset.PixelData = bytes(len(dataset.PixelData))


def bright(dataset: Dataset) -> None:
    dataset.PixelData = b"\xff\x0f" * (len(dataset.PixelData) // 2)


def run(engine: Engine, *paths: Path) -> Outcome:
    return engine.run(instance_files(paths))


def test_a_class_above_its_threshold_is_found_with_its_certainty(
    engine: Engine, tmp_path: Path
) -> None:
    outcome = run(engine, make_radiograph(tmp_path / "a.dcm", modify=bright))
    assert isinstance(outcome, ImageAnalysis)
    (finding,) = outcome.findings
    assert (finding.key, finding.image) == ("pleural-effusion", 0)
    (certainty,) = finding.measurements
    assert certainty.name.meaning == "Certainty of Finding"
    assert certainty.value == pytest.approx(100, abs=0.1)
    assert len(outcome.sought) == 14
    assert outcome.limits[0].startswith("The view is not looked at")


def test_nothing_above_its_threshold_is_nothing_found(engine: Engine, tmp_path: Path) -> None:
    outcome = run(engine, make_radiograph(tmp_path / "a.dcm", modify=dark))
    assert isinstance(outcome, ImageAnalysis)
    assert outcome.findings == ()


def test_each_image_of_a_series_is_looked_at(engine: Engine, tmp_path: Path) -> None:
    """PIX-11: several images in one series."""
    paths = [
        make_radiograph(tmp_path / f"{number}.dcm", modify=modify)
        for number, modify in enumerate((dark, bright, dark))
    ]
    outcome = run(engine, *paths)
    assert isinstance(outcome, ImageAnalysis)
    assert len(outcome.sources) == 3
    assert [finding.image for finding in outcome.findings] == [1]


def without_pixels(dataset: Dataset) -> None:
    del dataset.PixelData


def mammogram(dataset: Dataset) -> None:
    dataset.Modality = "MG"


def hand(dataset: Dataset) -> None:
    dataset.BodyPartExamined = "HAND"


def small(dataset: Dataset) -> None:
    dataset.Rows = dataset.Columns = 64


def burned_in(dataset: Dataset) -> None:
    dataset.BurnedInAnnotation = "YES"


def colour(dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"


def short(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:1000]


@pytest.mark.parametrize(
    ("modify", "reason"),
    [
        (without_pixels, "NO_PIXEL_DATA"),
        (mammogram, "MODALITY"),
        (hand, "BODY_PART"),
        (small, "SMALL_MATRIX"),
        (burned_in, "SECONDARY_ONLY"),
        (colour, "PIXEL_FORMAT"),
        (short, "PIXELS_SHORT"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    modify: Callable[[Dataset], None], reason: str, engine: Engine, tmp_path: Path
) -> None:
    outcome = run(engine, make_radiograph(tmp_path / "a.dcm", modify=modify))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == reason


def test_a_volume_is_refused(engine: Engine, tmp_path: Path) -> None:
    outcome = run(engine, *make_ct_series(tmp_path / "ct", slices=3))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "MODALITY"


def test_a_net_with_fewer_classes_is_not_imported(tmp_path: Path) -> None:
    net = brightness_net(tmp_path / "net.onnx", classes=5)
    with pytest.raises(InferenceError, match=r"\(1, 5\) for one image"):
        import_model(net, ANSWERS, tmp_path / "package")


def test_what_is_no_share_is_an_error_not_a_finding(tmp_path: Path) -> None:
    answers = tmp_path / "answers.toml"
    answers.write_text(ANSWERS.read_text().replace('activation = "softmax"', 'activation = "none"'))
    with pytest.raises(InferenceError, match="not between 0 and 1"):
        import_model(brightness_net(tmp_path / "net.onnx"), answers, tmp_path / "package")


def test_the_golden_case_tells_a_net_with_other_weights(engine: Engine, tmp_path: Path) -> None:
    assert verify_package(engine.package).passed
    other = import_model(
        brightness_net(tmp_path / "other.onnx", at=PNEUMOTHORAX), ANSWERS, tmp_path / "other"
    )
    expected = np.load(engine.package.folder / "golden" / "expected.npz")["scores"]
    assert not np.allclose(np.load(other.folder / "golden" / "expected.npz")["scores"], expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("index = 2\n", "index = 1\n", "share a key, a code or an index"),
        ('key = "mass"', 'key = "nodule"', "share a key, a code or an index"),
        ('{step = "linear", divide = 255.0}', '{step = "crop", above = 1.0}', "for volumes"),
        ("threshold = 0.5", "threshold = 1.5", r"classes\.0\.threshold"),
    ],
)
def test_answers_that_make_no_sense_are_refused(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    text = ANSWERS.read_text()
    assert old in text
    answers = tmp_path / "answers.toml"
    answers.write_text(text.replace(old, new, 1))
    with pytest.raises(EngineError, match=message) as caught:
        import_model(brightness_net(tmp_path / "net.onnx"), answers, tmp_path / "package")
    assert isinstance(caught.value, PackageError)
