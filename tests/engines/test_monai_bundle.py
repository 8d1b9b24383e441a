"""MONAI bundles made with MONAI's own code, and run by it, beside the imported engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread

from engines.errors import PackageError
from engines.importing import import_model
from tests.engines.foreign import answers, ct, exported, labelled, small_net

monai = pytest.importorskip("monai", reason="NOT RUN: monai is not installed")
SPACE = [2.5, 2.5, 3.5]
BEFORE: list[dict[str, Any]] = [
    {"_target_": "LoadImaged", "keys": "@keys"},
    {"_target_": "EnsureChannelFirstd", "keys": "@keys"},
    {"_target_": "Orientationd", "keys": "@keys", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "@keys", "pixdim": "@space", "mode": "bilinear"},
    {
        "_target_": "ScaleIntensityRanged", "keys": "@keys",
        "a_min": -900.0, "a_max": 600.0, "b_min": -1.0, "b_max": 1.0, "clip": True,
    },
    {"_target_": "EnsureTyped", "keys": "@keys"},
]  # fmt: skip
INFERER = {
    "_target_": "SlidingWindowInferer", "roi_size": [24, 32, 16], "sw_batch_size": 2,
    "overlap": 0.4, "mode": "gaussian",
}  # fmt: skip
INVERT = {
    "_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
    "to_tensor": True,
}  # fmt: skip
SCORES_BACK: list[dict[str, Any]] = [
    {"_target_": "Activationsd", "keys": "pred", "softmax": True},
    {**INVERT, "nearest_interp": False},
    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
]
LABELS_BACK: list[dict[str, Any]] = [
    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    {**INVERT, "nearest_interp": True},
]
METADATA = {
    "version": "0.1.0",
    "network_data_format": {
        "inputs": {"image": {"type": "image", "format": "hounsfield", "num_channels": 1}},
        "outputs": {"pred": {"num_channels": 2, "channel_def": {"0": "background", "1": "dense"}}},
    },
}


def bundle(folder: Path, before: list[dict[str, Any]], after: list[dict[str, Any]],
           inferer: dict[str, Any] = INFERER) -> Path:  # fmt: skip
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    config = {
        "keys": "image",
        "space": SPACE,
        "output_dir": "eval",
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "inferer": inferer,
        "postprocessing": {"_target_": "Compose", "transforms": after},
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    return folder


def by_monai(folder: Path, net: Any, files: list[Path]) -> npt.NDArray[np.bool_]:  # noqa: ANN401
    """Run the bundle with MONAI's own parser, transforms and inferer."""
    import torch
    from monai.bundle.config_parser import ConfigParser
    from monai.data.meta_tensor import MetaTensor

    slices = sorted((dcmread(path) for path in files), key=lambda s: s.ImagePositionPatient[2])
    values = np.stack([item.pixel_array - 1024.0 for item in slices])
    first = slices[0]
    rows, columns = map(float, first.PixelSpacing)
    apart = float(slices[1].ImagePositionPatient[2] - slices[0].ImagePositionPatient[2])
    affine = np.diag([-columns, -rows, apart, 1.0])
    affine[:3, 3] = np.array(first.ImagePositionPatient, float) * [-1, -1, 1]
    turned = torch.as_tensor(affine)
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    chain = parser.get_parsed_content("preprocessing")
    chain.transforms = chain.transforms[2:]
    image = MetaTensor(torch.as_tensor(values.transpose(2, 1, 0)[None].copy()).float(), turned)
    data = chain({"image": image})
    with torch.no_grad():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], net)[0]
    data["pred"] = MetaTensor(data["pred"], meta=data["image"].meta)
    after = parser.get_parsed_content("postprocessing")
    for step in after.transforms:
        if type(step).__name__ != "SaveImaged":
            if type(step).__name__ == "Invertd":
                step.transform = chain
            data = step(data)
    found: npt.NDArray[np.bool_] = np.asarray(data["pred"])[0].transpose(2, 1, 0) == 1
    return found


VARIANTS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "scores back": (BEFORE, SCORES_BACK),
    "labels back": (BEFORE, LABELS_BACK),
    "z-score of what is not zero": (
        [*BEFORE[:4], {"_target_": "NormalizeIntensityd", "keys": "@keys", "nonzero": True}],
        LABELS_BACK,
    ),
    "percentiles": (
        [*BEFORE[:4], {"_target_": "ScaleIntensityRangePercentilesd", "keys": "@keys",
                       "lower": 2, "upper": 98, "b_min": 0.0, "b_max": 1.0, "clip": True}],
        SCORES_BACK,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_an_imported_bundle_labels_as_monai_does(variant: str, tmp_path: Path) -> None:
    """At most 1 voxel in 1000 differs: where two scores are alike."""
    before, after = VARIANTS[variant]
    folder, net = bundle(tmp_path / "bundle", before, after), small_net(3)
    exported(net, folder / "models" / "model.onnx")
    package = import_model(folder, answers(tmp_path / "answers.toml"), tmp_path / "package")
    files = ct(tmp_path / "ct")
    expected = by_monai(folder, net, files)
    assert 0.02 < expected.mean() < 0.98
    found = labelled(package, files)
    assert np.mean(found != expected) <= 1e-3


def refused(tmp_path: Path, before: list[dict[str, Any]], after: list[dict[str, Any]],
            inferer: dict[str, Any] = INFERER, segment: str = "") -> str:  # fmt: skip
    folder = bundle(tmp_path / "bundle", before, after, inferer)
    exported(small_net(3), folder / "models" / "model.onnx")
    said = answers(tmp_path / "answers.toml", segment=segment)
    with pytest.raises(PackageError) as error:
        import_model(folder, said, tmp_path / "package")
    assert not (tmp_path / "package").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"_target_": "monai.transforms.MedianSmoothd", "radius": 1}, "MedianSmooth is not read"),
        ({"_target_": "Spacingd", "pixdim": [1, 1, 1]}, "Spacingd: comes later"),
        ({"_target_": "ScaleIntensityRanged", "a_min": "$-5 * 2", "a_max": 1}, "a_min: $-5 * 2"),
        ({"_target_": "CropForegroundd", "k_divisible": 8}, "k_divisible: 8 is not read"),
        ({"_target_": "NormalizeIntensityd", "unheard": 1}, "NormalizeIntensityd.unheard"),
        ({"_target_": "NormalizeIntensityd", "divisor": "@nowhere"}, "divisor: @nowhere"),
    ],
)
def test_what_cannot_be_carried_over_before_the_net_is_named(
    extra: dict[str, Any], named: str, tmp_path: Path
) -> None:
    assert named in refused(tmp_path, [*BEFORE, extra], LABELS_BACK)


@pytest.mark.parametrize(
    ("after", "named"),
    [
        ([*LABELS_BACK, {"_target_": "FillHolesd"}], "FillHoles is not read"),
        ([*LABELS_BACK, {"_target_": "KeepLargestConnectedComponentd"}], "connectivity"),
        (
            [*LABELS_BACK, {"_target_": "KeepLargestConnectedComponentd", "connectivity": 1}],
            "say largest = 1",
        ),
        ([INVERT, LABELS_BACK[0]], "nearest_interp belongs to labels"),
        (LABELS_BACK[:1], "needs AsDiscreted and Invertd"),
    ],
)
def test_what_cannot_be_carried_over_after_the_net_is_named(
    after: list[dict[str, Any]], named: str, tmp_path: Path
) -> None:
    assert named in refused(tmp_path, BEFORE, after)


@pytest.mark.parametrize(
    ("inferer", "named"),
    [
        ({**INFERER, "padding_mode": "reflect"}, "padding_mode: reflect"),
        ({**INFERER, "buffer_dim": 1}, "buffer_dim"),
        ({"_target_": "monai.inferers.SliceInferer"}, "SliceInferer is not read"),
    ],
)
def test_another_inferer_is_named(inferer: dict[str, Any], named: str, tmp_path: Path) -> None:
    assert named in refused(tmp_path, BEFORE, LABELS_BACK, inferer)


def test_labels_that_the_bundle_does_not_have_are_named(tmp_path: Path) -> None:
    second = answers(tmp_path / "x").read_text().partition("[[segmentation")[2].partition("]]")[2]
    segment = "[[segmentation.segments]]" + second.replace("dense", "soft").replace("= 1", "= 2")
    assert "has no label 2" in refused(tmp_path, BEFORE, LABELS_BACK, segment=segment)


def test_a_bundle_of_pickles_is_refused_with_the_advice(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle", BEFORE, LABELS_BACK)
    (folder / "models").mkdir()
    (folder / "models" / "model.ts").write_bytes(b"PK")
    with pytest.raises(PackageError, match=r"model\.ts may hold pickles.*onnx_export"):
        import_model(folder, answers(tmp_path / "answers.toml"), tmp_path / "package")


def test_a_recipe_in_the_answers_is_refused_where_the_bundle_has_it(tmp_path: Path) -> None:
    segment = '[segmentation.recipe.preprocessing]\norientation = "RAS"\n'
    message = refused(tmp_path, BEFORE, LABELS_BACK, segment=segment)
    assert "segmentation.recipe.preprocessing: is read from what is imported" in message
