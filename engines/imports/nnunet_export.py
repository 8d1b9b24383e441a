"""nnU-Net v2: plans.json and dataset.json of a trained configuration, and its network as ONNX.

What is done follows nnunetv2 2.8: preprocessing/preprocessors/default_preprocessor.py,
preprocessing/normalization, preprocessing/resampling/default_resampling.py and
inference/predict_from_raw_data.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from pydantic import JsonValue

from engines.errors import PackageError
from engines.formats import (
    Format,
    Imported,
    check_labels,
    only_model,
    read_json,
    tensor_names,
)

PLANS: Final = "plans.json"
DATASET: Final = "dataset.json"
CONFIGURATIONS: Final = ("3d_fullres", "3d_lowres")
READERS: Final = {"SimpleITKIO": "", "NibabelIOWithReorient": "SAR"}
"""Readers whose arrays are [slice, row, column] as they come, or oriented."""
STEP: Final = 0.5
"""Distance of windows as a share of one, unless nnUNetv2_predict is told otherwise."""
RESAMPLING: Final = "resample_data_or_seg_to_shape"


class NnunetExport(Format):
    """A folder with plans.json, dataset.json and one ONNX file."""

    name: ClassVar[str] = "nnunet_export"

    def recognises(self, folder: Path) -> bool:
        """Say whether the plans are there."""
        return (folder / PLANS).is_file()

    def read(self, folder: Path, answers: Mapping[str, JsonValue]) -> Imported:
        """Read spacing, normalisation, windows and labels."""
        plans, dataset = read_json(folder / PLANS), read_json(folder / DATASET)
        configuration = _configuration(plans)
        labels = _labels(dataset)
        check_labels(answers, labels, DATASET)
        model = only_model(folder, "export the network with torch.onnx.export")
        return Imported(
            model=model,
            task="segmentation",
            tables={
                "recipe.preprocessing": _preprocessing(plans, dataset, configuration),
                "recipe.inference": {
                    **dict(zip(("input", "output"), tensor_names(model), strict=True)),
                    **_inference(configuration, answers),
                },
            },
        )


def _configuration(plans: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return the configuration of the whole volume in three dimensions.

    Raises:
        PackageError: there is none, or it works in a way that is not carried over.
    """
    known = plans.get("configurations")
    known = known if isinstance(known, dict) else {}
    name = next((item for item in CONFIGURATIONS if item in known), None)
    if name is None:
        raise PackageError(f"{PLANS}: configurations: {sorted(known)}: none of {CONFIGURATIONS}")
    found = known[name]
    if not isinstance(found, dict):
        raise PackageError(f"{PLANS}: configurations.{name}: is no table")
    parent = found.get("inherits_from")
    if isinstance(parent, str) and isinstance(known.get(parent), dict):
        base = known[parent]
        found = {**(base if isinstance(base, dict) else {}), **found}
    if found.get("previous_stage"):
        raise PackageError(f"{PLANS}: configurations.{name}.previous_stage: cascades are not read")
    preprocessor = found.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise PackageError(f"{PLANS}: preprocessor_name: {preprocessor} is not read")
    _check_resampling(found)
    return found


def _check_resampling(found: Mapping[str, JsonValue]) -> None:
    for key, wanted in (("data", 3), ("probabilities", 1)):
        name = found.get(f"resampling_fn_{key}", RESAMPLING)
        options = found.get(f"resampling_fn_{key}_kwargs")
        options = options if isinstance(options, dict) else {}
        said = (options.get("order", wanted), options.get("order_z", 0))
        if name != RESAMPLING or said != (wanted, 0) or options.get("force_separate_z") is not None:
            raise PackageError(f"{PLANS}: resampling_fn_{key}: {name} {options} is not read")


def _labels(dataset: Mapping[str, JsonValue]) -> dict[int, str]:
    said = dataset.get("labels")
    if not isinstance(said, dict) or not said:
        raise PackageError(f"{DATASET}: labels: are missing")
    regions = sorted(name for name, value in said.items() if not isinstance(value, int))
    if regions:
        raise PackageError(f"{DATASET}: labels: regions ({', '.join(regions)}) are not read")
    if "ignore" in said:
        said = {name: value for name, value in said.items() if name != "ignore"}
    return {int(str(value)): name for name, value in said.items()}


def _preprocessing(
    plans: Mapping[str, JsonValue],
    dataset: Mapping[str, JsonValue],
    configuration: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    axes = [int(value) for value in _numbers(plans, "transpose_forward", 3)]
    orientation = _reader(plans, dataset)
    table: dict[str, JsonValue] = {"nonzero": True}
    if orientation:
        table["orientation"] = "".join(orientation[axis] for axis in axes)
    else:
        table["axes"] = list(axes)
    return {
        **table,
        "spacing": list(_numbers(configuration, "spacing", 3)),
        "anchor": "field",
        "apart": True,
        "interpolation": "cubic",
        "on": "source",
        "intensity": list(_normalisation(plans, dataset, configuration)),
    }


def _reader(plans: Mapping[str, JsonValue], dataset: Mapping[str, JsonValue]) -> str:
    name = dataset.get("overwrite_image_reader_writer") or plans.get("image_reader_writer")
    if name not in READERS:
        raise PackageError(f"{PLANS}: image_reader_writer: {name}; {sorted(READERS)} are read")
    return READERS[str(name)]


def _normalisation(
    plans: Mapping[str, JsonValue],
    dataset: Mapping[str, JsonValue],
    configuration: Mapping[str, JsonValue],
) -> list[JsonValue]:
    """Return the steps for the one channel."""
    channels = dataset.get("channel_names")
    if not isinstance(channels, dict) or len(channels) != 1:
        raise PackageError(f"{DATASET}: channel_names: one channel is read, not {channels}")
    (scheme,) = _one(configuration, "normalization_schemes")
    (masked,) = _one(configuration, "use_mask_for_norm")
    if masked:
        raise PackageError(f"{PLANS}: use_mask_for_norm: normalisation within a mask is not read")
    match scheme:
        case "CTNormalization":
            return _ct_steps(plans)
        case "ZScoreNormalization":
            return [{"step": "normalise"}]
        case "NoNormalization":
            return []
        case "RescaleTo01Normalization":
            return [{"step": "quantiles", "low": 0.0, "high": 1.0}]
        case _:
            raise PackageError(f"{PLANS}: normalization_schemes: {scheme} is not read")


def _ct_steps(plans: Mapping[str, JsonValue]) -> list[JsonValue]:
    channels = plans.get("foreground_intensity_properties_per_channel")
    said = channels.get("0") if isinstance(channels, dict) else None
    names = ("percentile_00_5", "percentile_99_5", "mean", "std")
    values = [said.get(name) if isinstance(said, dict) else None for name in names]
    if not all(isinstance(value, int | float) for value in values):
        raise PackageError(f"{PLANS}: foreground_intensity_properties_per_channel: lack {names}")
    low, high, mean, deviation = (float(str(value)) for value in values)
    return [
        {"step": "clip", "low": low, "high": high},
        {"step": "linear", "subtract": mean, "divide": max(deviation, 1e-8)},
    ]


def _one(table: Mapping[str, JsonValue], key: str) -> Sequence[JsonValue]:
    value = table.get(key)
    if not isinstance(value, list) or len(value) != 1:
        raise PackageError(f"{PLANS}: {key}: has not one value, for one channel")
    return value


def _inference(
    configuration: Mapping[str, JsonValue], answers: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Return windows as nnUNetv2_predict has them.

    Mirroring is of the checkpoint, which is a pickle: the answers have to say it.
    """
    said = answers.get("parameters")
    mirrored = said.get("Mirrored axes") if isinstance(said, dict) else None
    if not isinstance(mirrored, str) or set(mirrored) - set("012 ,"):
        raise PackageError(
            'parameters."Mirrored axes": is missing: "0, 1, 2", or "" for none; the checkpoint'
            " has it as inference_allowed_mirroring_axes"
        )
    mirror: list[JsonValue] = [int(axis) for axis in mirrored.replace(",", " ").split()]
    return {
        "pattern": "windows",
        "window": [int(size) for size in _numbers(configuration, "patch_size", 3)],
        "overlap": STEP,
        "blend": "gaussian-on-voxel",
        "pad": "zero",
        "mirror": mirror,
        "decision": "argmax",
        "back": "scores",
    }


def _numbers(table: Mapping[str, JsonValue], key: str, count: int) -> list[float]:
    value = table.get(key)
    if not isinstance(value, list) or len(value) != count:
        raise PackageError(f"{PLANS}: {key}: is not {count} numbers")
    if not all(isinstance(item, int | float) for item in value):
        raise PackageError(f"{PLANS}: {key}: is not {count} numbers")
    return [float(str(item)) for item in value]
