from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from engines.base import open_engine
from engines.errors import EngineError, ModelInvalidError
from engines.findings import Analysis, Outcome, Refusal
from engines.importing import import_model
from engines.package import PackageError
from tests.factories import instance_files, make_ct_series, uid

ANSWERS = Path(__file__).parents[3] / "config" / "engines" / "brain_hippodeep" / "engine.toml"
SIDE = 64


def written(path: Path, nodes: list[onnx.NodeProto], given: onnx.ValueInfoProto,
            got: onnx.ValueInfoProto, **constants: object) -> None:  # fmt: skip
    graph = helper.make_graph(
        nodes, "net", [given], [got],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))


def tensor(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def nets(folder: Path, affine: object) -> Path:
    """Write three: bright is head, the affine is as given, and bright is hippocampus."""
    folder.mkdir()
    written(
        folder / "head.onnx",
        [
            helper.make_node("Sigmoid", ["t1_las64"], ["share"]),
            helper.make_node("Concat", ["share"] * 4, ["priors"], axis=1),
        ],
        tensor("t1_las64", [1, 1, 64, 64, 64]), tensor("priors", [1, 4, 64, 64, 64]),
    )  # fmt: skip
    written(
        folder / "affine.onnx",
        [
            helper.make_node("ReduceMean", ["priors_1_3"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "nought"], ["nothing"]),
            helper.make_node("Add", ["matrix", "nothing"], ["affine"]),
        ],
        tensor("priors_1_3", [1, 2, 64, 64, 64]), tensor("affine", [1, 4, 4]),
        matrix=np.array(affine, np.float32)[None], nought=np.float32(0),
    )  # fmt: skip
    written(
        folder / "hippo.onnx",
        [
            helper.make_node("Slice", ["crop", "low", "high", "axes"], ["inner"]),
            helper.make_node("Mul", ["inner", "hundred"], ["steep"]),
            helper.make_node("Sigmoid", ["steep"], ["prob"]),
        ],
        tensor("crop", [1, 1, 48, 72, 64]), tensor("prob", [1, 1, 44, 68, 60]),
        low=np.array([2, 2, 2]), high=np.array([46, 70, 62]), axes=np.array([2, 3, 4]),
        hundred=np.float32(100),
    )  # fmt: skip
    return folder


def answers(path: Path) -> Path:
    """Return the answers without bounds: a phantom's structures have no plausible size."""
    lines = [line for line in ANSWERS.read_text().splitlines() if "plausible_ml" not in line]
    path.write_text("\n".join(lines))
    return path


def series(folder: Path) -> list[Path]:
    """Write a volume, dark but for a bright box right of the middle."""

    def modify(dataset: Dataset, index: int) -> None:
        image = np.full((SIDE, SIDE), 100, np.int16)
        if 18 <= index < 30:
            image[26:38, 18:28] = 900
        dataset.PixelData = image.tobytes()
        dataset.Modality, dataset.BodyPartExamined = "MR", "BRAIN"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.SOPInstanceUID = uid("template", index)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        for name in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
            delattr(dataset, name)

    return make_ct_series(
        folder, slices=SIDE, rows=SIDE, columns=SIDE, spacing=(2.5, 2.9, 2.5),
        modify=modify, slice_thickness=2.8,
    )  # fmt: skip


def run(tmp_path: Path, affine: object, least: float | None = None) -> Outcome:
    text = answers(tmp_path / "answers.toml").read_text()
    if least is not None:
        text = text.replace("least = 0.12549", f"least = {least}")
        (tmp_path / "answers.toml").write_text(text)
    package = import_model(
        nets(tmp_path / "nets", affine), tmp_path / "answers.toml", tmp_path / "package"
    )
    with open_engine(package) as engine:
        outcome = engine.run(instance_files(series(tmp_path / "series")))
        assert engine.forward_seconds > 0
    return outcome


def test_a_structure_is_found_on_its_own_side_where_the_template_says(tmp_path: Path) -> None:
    """An identity: the template fills the field of view. Columns run to the patient's left."""
    outcome = run(tmp_path, np.eye(4))
    assert isinstance(outcome, Analysis)
    right = next(item for item in outcome.findings if item.key == "hippocampus-right")
    places = np.argwhere(right.mask)
    assert places.min(axis=0) == pytest.approx([18, 26, 18], abs=1)
    assert places.max(axis=0) == pytest.approx([29, 37, 27], abs=1)
    assert right.laterality is not None
    assert right.laterality.meaning == "Right"
    box = 12 * 12 * 10 * 2.5 * 2.9 * 2.5 / 1000
    assert right.measurements[0].value == pytest.approx(box, rel=0.3)  # its edges are blurred
    left = [item for item in outcome.findings if item.key == "hippocampus-left"]
    assert not left or not left[0].mask[:, :, :30].any()


def test_voxels_of_which_little_is_a_structure_do_not_count(tmp_path: Path) -> None:
    """All that is left of the box is what lies wholly in it."""
    volumes = []
    for least in (0.0, 0.5, 0.999):
        (tmp_path / str(least)).mkdir()
        outcome = run(tmp_path / str(least), np.eye(4), least)
        assert isinstance(outcome, Analysis)
        right = next(item for item in outcome.findings if item.key == "hippocampus-right")
        volumes.append(right.measurements[0].value)
        millilitre = 2.5 * 2.9 * 2.5 / 1000
        assert least == 0.0 or volumes[-1] < right.mask.sum() * millilitre
    assert volumes[0] > volumes[1] > volumes[2] > 0


def test_no_place_for_the_template_is_a_refusal(tmp_path: Path) -> None:
    outcome = run(tmp_path, np.diag([1e-3, 1e-3, 1e-3, 1.0]))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "NO_BODY"


def test_one_model_of_three_is_not_enough(tmp_path: Path) -> None:
    folder = nets(tmp_path / "nets", np.eye(4))
    with pytest.raises(PackageError, match="needs the folder that holds all models"):
        import_model(folder / "hippo.onnx", ANSWERS, tmp_path / "package")
    (folder / "affine.onnx").unlink()
    with pytest.raises(PackageError, match="no such file"):
        import_model(folder, ANSWERS, tmp_path / "package")
    (folder / "affine.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError):
        import_model(folder, answers(tmp_path / "answers.toml"), tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_a_model_that_the_package_does_not_name_is_an_error(tmp_path: Path) -> None:
    text = answers(tmp_path / "answers.toml").read_text().replace('model = "head"', 'model = "x"')
    (tmp_path / "answers.toml").write_text(text)
    with pytest.raises(ModelInvalidError, match="no model named 'x'"):
        import_model(
            nets(tmp_path / "nets", np.eye(4)), tmp_path / "answers.toml", tmp_path / "package"
        )
