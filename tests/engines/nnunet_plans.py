"""Plans as nnU-Net v2 writes them, and where what its own code made of them is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom import dcmread

KEPT: Final = Path(__file__).parent / "nnunet"
NETWORK: Final = KEPT / "network.onnx"
LABELS: Final = KEPT / "labels.npz"
PLANNED: Final = KEPT / "planned"
SPACING: Final = (4.0, 3.1, 2.9)
"""Of the phantom, as `tests.engines.foreign` writes it, between slices, rows and columns in mm."""
DATASET: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "dense": 1},
    "file_ending": ".nii.gz",
}


def plans(**changes: object) -> dict[str, Any]:
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "architecture": {
            "network_class_name": "torch.nn.Sequential", "arch_kwargs": {},
            "_kw_requires_import": [],
        },
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [16, 28, 32],
        "spacing": [3.2, 2.6, 2.4],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {
            "is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None,
        },
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {
            "is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None,
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


def in_float32(variant: str) -> str:
    """Return the name of what nnU-Net labels when it keeps scores in float32, not in half."""
    return f"{variant} in float32"


def read_values(files: list[Path]) -> npt.NDArray[np.float64]:
    """Return HU of a series, [slice, row, column] from the feet up."""
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
