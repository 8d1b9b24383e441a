"""nnU-Net v2 exports beside nnU-Net's own steps.

nnunetv2 itself brings some forty packages, so its steps are re-stated here from release 2.8.1:
preprocessing/preprocessors/default_preprocessor.py (run_case_npy), preprocessing/cropping,
preprocessing/normalization/default_normalization_schemes.py,
preprocessing/resampling/default_resampling.py (resample_data_or_seg, skimage's resize by its
scipy.ndimage.zoom), inference/sliding_window_prediction.py and inference/export_prediction.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from pydicom import dcmread
from scipy import ndimage

from engines.errors import PackageError
from engines.importing import import_model
from tests.engines.foreign import answers, ct, exported, labelled, small_net

torch = pytest.importorskip("torch", reason="NOT RUN: torch is not installed")
Floats = npt.NDArray[np.float64]
MIRRORED = '"Mirrored axes" = "0, 1, 2"'
DATASET: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "dense": 1},
    "file_ending": ".nii.gz",
}


def plans(**changes: object) -> dict[str, Any]:
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [16, 28, 32],
        "spacing": [3.2, 2.6, 2.4],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {
            "is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None,
        },
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {
            "is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None,
        },
        **changes,
    }  # fmt: skip
    properties = {
        "mean": -150.0, "std": 320.0, "percentile_00_5": -900.0, "percentile_99_5": 700.0,
        "median": 30.0, "min": -1000.0, "max": 1500.0,
    }  # fmt: skip
    return {
        "dataset_name": "Dataset001_Phantom",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": properties},
        "configurations": {"2d": {}, "3d_fullres": configuration},
    }


def export(folder: Path, said: dict[str, Any], dataset: dict[str, Any] = DATASET) -> Path:
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(said))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    exported(small_net(5), folder / "network.onnx")
    return folder


# ------------------------------------------------------------- nnU-Net's steps, re-stated


def separate_axis(now: list[float], then: list[float]) -> int | None:
    """determine_do_sep_z_and_axis, with force_separate_z None."""
    for spacing in (now, then):
        if max(spacing) / min(spacing) > 3:
            axis = np.where(max(spacing) / np.array(spacing) == 1)[0]
            return int(axis[0]) if len(axis) == 1 else None
    return None


def resize(image: Floats, shape: tuple[int, ...], order: Literal[1, 3]) -> Floats:
    """skimage.transform.resize with mode "edge", without anti-aliasing; clipped, as it does."""
    zoom = [new / old for new, old in zip(shape, image.shape, strict=True)]
    found = ndimage.zoom(image, zoom, order=order, mode="nearest", grid_mode=True)
    clipped: Floats = np.clip(found, image.min(), image.max())
    return clipped


def resampled(image: Floats, shape: tuple[int, ...], now: list[float], then: list[float],
              order: Literal[1, 3]) -> Floats:  # fmt: skip
    """resample_data_or_seg of one channel."""
    if image.shape == shape:
        return image
    axis = separate_axis(now, then)
    if axis is None:
        return resize(image, shape, order)
    flat = tuple(n for i, n in enumerate(shape) if i != axis)
    planes = np.stack([resize(plane, flat, order) for plane in np.moveaxis(image, axis, 0)], axis)
    places = np.mgrid[tuple(slice(n) for n in shape)].astype(float)
    for i, (old, new) in enumerate(zip(planes.shape, shape, strict=True)):
        places[i] = old / new * (places[i] + 0.5) - 0.5
    found: Floats = ndimage.map_coordinates(planes, places, order=0, mode="nearest")
    return found


def gaussian(size: list[int]) -> Floats:
    weights = np.zeros(size)
    weights[tuple(n // 2 for n in size)] = 1
    weights = ndimage.gaussian_filter(weights, [n / 8 for n in size], mode="constant")
    weights /= weights.max()
    weights[weights == 0] = weights[weights != 0].min()
    found: Floats = weights
    return found


def window_starts(size: int, window: int) -> list[int]:
    count = int(np.ceil((size - window) / (window * 0.5))) + 1
    step = (size - window) / (count - 1) if count > 1 else 0
    return [int(np.round(step * i)) for i in range(count)]


def predicted(image: Floats, window: list[int], net: Callable[[Floats], Floats]) -> Floats:
    """Windows half a window apart, Gaussian, averaged over all mirrorings."""
    ends = [(max(0, w - n) // 2, -(-max(0, w - n) // 2)) for n, w in zip(image.shape, window,
            strict=True)]  # fmt: skip
    padded = np.pad(image, ends)
    weights = gaussian(window)
    scores, norm = np.zeros((2, *padded.shape)), np.zeros(padded.shape)
    flips = list(chain.from_iterable(combinations(range(3), n) for n in range(4)))
    for corner in product(*(window_starts(n, w) for n, w in zip(padded.shape, window,
                            strict=True))):  # fmt: skip
        part = tuple(slice(a, a + w) for a, w in zip(corner, window, strict=True))
        both = [
            np.flip(net(np.flip(padded[part], flip)), tuple(axis + 1 for axis in flip))
            for flip in flips
        ]
        scores[(slice(None), *part)] += np.mean(both, axis=0) * weights
        norm[part] += weights
    inner = tuple(slice(a, n - b) for (a, b), n in zip(ends, padded.shape, strict=True))
    found: Floats = (scores / norm)[(slice(None), *inner)]
    return found


def by_nnunet(values: Floats, spacing: list[float], said: dict[str, Any], model: Path) -> Floats:
    configuration = said["configurations"]["3d_fullres"]
    forward = said["transpose_forward"]
    image = values.transpose(forward)
    now, then = [spacing[axis] for axis in forward], configuration["spacing"]
    whole = image.shape
    places = np.argwhere(image != 0)
    box = tuple(slice(a, b + 1) for a, b in zip(places.min(0), places.max(0), strict=True))
    image = image[box].astype(np.float64)
    cropped = image.shape
    shape = tuple(round(a / b * n) for a, b, n in zip(now, then, cropped, strict=True))
    if configuration["normalization_schemes"] == ["CTNormalization"]:
        known = said["foreground_intensity_properties_per_channel"]["0"]
        image = np.clip(image, known["percentile_00_5"], known["percentile_99_5"])
        image = (image - known["mean"]) / known["std"]
    else:
        image = (image - image.mean()) / image.std()
    image = resampled(image, shape, now, then, 3)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def net(part: Floats) -> Floats:
        given = np.ascontiguousarray(part[None, None], np.float32)
        found: Floats = session.run(None, {"image": given})[0][0]
        return found

    scores = predicted(image, configuration["patch_size"], net)
    back = np.stack([resampled(item, cropped, then, now, 1) for item in scores])
    labels = np.zeros(whole)
    labels[box] = back.argmax(axis=0)
    found: Floats = labels.transpose(said["transpose_backward"])
    return found


def read(files: list[Path]) -> Floats:
    slices = sorted((dcmread(path) for path in files), key=lambda s: s.ImagePositionPatient[2])
    return np.stack([item.pixel_array - 1024.0 for item in slices])


VARIANTS: dict[str, dict[str, Any]] = {
    "ct": plans(),
    "z-score": plans(normalization_schemes=["ZScoreNormalization"]),
    "coarse slices": plans(spacing=[6.5, 2.1, 2.0], patch_size=[12, 48, 48]),
    "transposed": {
        **plans(patch_size=[32, 16, 28]), "transpose_forward": [1, 0, 2],
        "transpose_backward": [1, 0, 2],
    },
    "larger windows": plans(patch_size=[40, 32, 32]),
}  # fmt: skip


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_an_imported_export_labels_as_nnunet_does(variant: str, tmp_path: Path) -> None:
    """At most 1 voxel in 1000 differs: where two scores are alike."""
    said = VARIANTS[variant]
    folder = export(tmp_path / "export", said)
    package = import_model(
        folder, answers(tmp_path / "answers.toml", parameters=MIRRORED), tmp_path / "package"
    )
    files = ct(tmp_path / "ct")
    expected = by_nnunet(read(files), [4.0, 3.1, 2.9], said, folder / "network.onnx") == 1
    assert 0.02 < expected.mean() < 0.98
    assert np.mean(labelled(package, files) != expected) <= 1e-3


def with_key(key: str, value: object) -> dict[str, Any]:
    return {**plans(), key: value}


@pytest.mark.parametrize(
    ("said", "dataset", "named"),
    [
        (plans(use_mask_for_norm=[True]), {}, "use_mask_for_norm"),
        (plans(normalization_schemes=["RGBTo01Normalization"]), {}, "RGBTo01Normalization"),
        (plans(previous_stage="3d_lowres"), {}, "cascades are not read"),
        (plans(preprocessor_name="OwnPreprocessor"), {}, "OwnPreprocessor"),
        (plans(resampling_fn_data="resample_torch_fornnunet"), {}, "resample_torch_fornnunet"),
        (plans(patch_size=[16, 16]), {}, "patch_size: is not 3 numbers"),
        (with_key("configurations", {"2d": {}}), {}, r"none of"),
        (with_key("image_reader_writer", "NaturalImage2DIO"), {}, "NaturalImage2DIO"),
        (with_key("foreground_intensity_properties_per_channel", {}), {}, "properties_per_channel"),
        (plans(), {"channel_names": {"0": "T1", "1": "T2"}}, "channel_names: one channel"),
        (plans(), {"labels": {"background": 0, "all": [1, 2]}}, r"regions \(all\)"),
        (plans(), {"labels": {"background": 0, "dense": 1, "soft": 2}}, r"has 2 \(soft\) too"),
    ],
)
def test_what_cannot_be_carried_over_is_named(
    said: dict[str, Any], dataset: dict[str, Any], named: str, tmp_path: Path
) -> None:
    folder = export(tmp_path / "export", said, {**DATASET, **dataset})
    given = answers(tmp_path / "answers.toml", parameters=MIRRORED)
    with pytest.raises(PackageError, match=named):
        import_model(folder, given, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_mirroring_that_only_the_checkpoint_knows_has_to_be_answered(tmp_path: Path) -> None:
    folder = export(tmp_path / "export", plans())
    with pytest.raises(PackageError, match="inference_allowed_mirroring_axes"):
        import_model(folder, answers(tmp_path / "answers.toml"), tmp_path / "package")


def test_a_checkpoint_alone_is_refused_with_the_advice(tmp_path: Path) -> None:
    folder = export(tmp_path / "export", plans())
    (folder / "network.onnx").rename(folder / "checkpoint_final.pth")
    given = answers(tmp_path / "answers.toml", parameters=MIRRORED)
    with pytest.raises(PackageError, match=r"checkpoint_final\.pth may hold pickles.*export"):
        import_model(folder, given, tmp_path / "package")
