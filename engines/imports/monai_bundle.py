"""A MONAI bundle: configs/metadata.json, configs/inference.json, and its network as ONNX.

Each transform of the bundle is carried over, known to need nothing here, or named and refused.
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
    said_segments,
    tensor_names,
)
from engines.monai_transforms import named, only, preprocessing_of

METADATA: Final = "metadata.json"
INFERENCE: Final = "inference.json"
SECTIONS: Final = ("preprocessing", "inferer", "postprocessing")
NOTHING_LEFT: Final = frozenset({"SaveImage", "EnsureType", "ToDevice", "DeleteItems"})
"""Transforms after the net that have nothing to do here: results have their own writers."""
EXPORT: Final = "export the network with `python -m monai.bundle onnx_export`"
DEEPEST: Final = 16
INFERER_OPTIONS: Final = frozenset(
    {"_target_", "roi_size", "sw_batch_size", "overlap", "mode", "sigma_scale", "padding_mode",
     "cval", "progress", "sw_device", "device", "cache_roi_weight_map", "cpu_thresh"}
)  # fmt: skip
INFERER_FIXED: Final = {"sigma_scale": 0.125, "padding_mode": "constant", "cval": 0}
BLENDS: Final = {"constant": "even", "gaussian": "gaussian"}


class MonaiBundle(Format):
    """A folder with configs/metadata.json and configs/inference.json."""

    name: ClassVar[str] = "monai_bundle"

    def recognises(self, folder: Path) -> bool:
        """Say whether the configuration is there."""
        return all((folder / "configs" / name).is_file() for name in (METADATA, INFERENCE))

    def read(self, folder: Path, answers: Mapping[str, JsonValue]) -> Imported:
        """Carry transforms, inferer and labels over."""
        metadata = read_json(folder / "configs" / METADATA)
        whole = read_json(folder / "configs" / INFERENCE)
        config = {name: resolved(value, whole) for name, value in whole.items() if name in SECTIONS}
        check_labels(answers, _labels(metadata), METADATA)
        _check_channels(metadata)
        model = only_model(folder, EXPORT)
        given, got = tensor_names(model)
        inference = {**_inferer(config), **_after(config, answers)}
        return Imported(
            model=model,
            task="segmentation",
            tables={
                "recipe.preprocessing": preprocessing_of(_transforms(config, "preprocessing")),
                "recipe.inference": {"input": given, "output": got, **inference},
            },
        )


def resolved(value: JsonValue, whole: Mapping[str, JsonValue], depth: int = 0) -> JsonValue:
    """Put what "@name" refers to in its place; a reference to code stays as it is.

    Raises:
        PackageError: references go round in a circle.
    """
    if depth > DEEPEST:
        raise PackageError(f"{INFERENCE}: references go round in a circle")
    if isinstance(value, str) and value.startswith("@"):
        found = _at(value[1:].replace("#", "::").split("::"), whole)
        return value if found is None else resolved(found, whole, depth + 1)
    if isinstance(value, dict):
        return {key: resolved(item, whole, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item, whole, depth + 1) for item in value]
    return value


def _at(keys: Sequence[str], whole: Mapping[str, JsonValue]) -> JsonValue:
    found: JsonValue = dict(whole)
    for key in keys:
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict):
            found = found.get(key)
        else:
            return None
    return found


def _transforms(config: Mapping[str, JsonValue], section: str) -> list[Mapping[str, JsonValue]]:
    """Return the transforms of a section that are not switched off."""
    table = config.get(section)
    found = table.get("transforms") if isinstance(table, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise PackageError(f"{INFERENCE}: {section}.transforms: is no list of transforms")
    return [item for item in found if isinstance(item, dict) and not item.get("_disabled_")]


def _labels(metadata: Mapping[str, JsonValue]) -> dict[int, str]:
    channels = _at(["network_data_format", "outputs", "pred", "channel_def"], metadata)
    if not isinstance(channels, dict) or not all(str(key).isdecimal() for key in channels):
        raise PackageError(f"{METADATA}: network_data_format.outputs.pred.channel_def: is missing")
    return {int(key): str(name) for key, name in channels.items()}


def _check_channels(metadata: Mapping[str, JsonValue]) -> None:
    channels = _at(["network_data_format", "inputs", "image", "num_channels"], metadata)
    if channels != 1:
        raise PackageError(f"{METADATA}: inputs.image.num_channels: one is read, not {channels}")


def _inferer(config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    inferer = config.get("inferer")
    if not isinstance(inferer, dict):
        raise PackageError(f"{INFERENCE}: inferer: is missing")
    target = str(inferer.get("_target_", "")).rpartition(".")[2]
    if target == "SimpleInferer":
        return {"pattern": "whole"}
    if target != "SlidingWindowInferer":
        raise PackageError(f"{INFERENCE}: inferer: {target} is not read")
    for key, value in inferer.items():
        if key not in INFERER_OPTIONS or value != INFERER_FIXED.get(key, value):
            raise PackageError(f"{INFERENCE}: inferer.{key}: {value} is not read")
    size, mode = inferer.get("roi_size"), inferer.get("mode", "constant")
    if not isinstance(size, list) or not all(isinstance(n, int) and n > 0 for n in size):
        raise PackageError(f"{INFERENCE}: inferer.roi_size: is not three sizes")
    if mode not in BLENDS:
        raise PackageError(f"{INFERENCE}: inferer.mode: {mode} is not read")
    return {
        "pattern": "windows",
        "window": size,
        "overlap": inferer.get("overlap", 0.25),
        "blend": BLENDS[str(mode)],
        "steps": "fixed",
        "pad": "zero",
    }


def _after(
    config: Mapping[str, JsonValue], answers: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Carry over what is done with scores: activation, decision, where they are carried back."""
    table: dict[str, JsonValue] = {}
    for item in _transforms(config, "postprocessing"):
        target = named(item)
        match target:
            case "Activations":
                table |= _activation(item)
            case "Invert":
                table |= _inverted(item, table)
            case "AsDiscrete":
                table |= _decision(item)
            case "KeepLargestConnectedComponent":
                _check_largest(item, answers)
            case _ if target not in NOTHING_LEFT:
                raise PackageError(f"{INFERENCE}: postprocessing: {target} is not read")
            case _:
                continue
    if "decision" not in table or "back" not in table:
        raise PackageError(f"{INFERENCE}: postprocessing: needs AsDiscreted and Invertd")
    return table


def _activation(item: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    only(item, {"sigmoid", "softmax"})
    chosen = [name for name in ("sigmoid", "softmax") if item.get(name)]
    return {"activation": chosen[0] if chosen else "none"}


def _inverted(
    item: Mapping[str, JsonValue], before: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Scores are carried back by interpolation, labels to the nearest voxel."""
    free = {"transform", "orig_keys", "orig_meta_keys", "to_tensor", "meta_key_postfix"}
    only({key: value for key, value in item.items() if key not in free}, {"nearest_interp"})
    nearest = bool(item.get("nearest_interp", True))
    if nearest != ("decision" in before):
        raise PackageError(
            f"{INFERENCE}: postprocessing: Invertd: nearest_interp belongs to labels, and to no"
            " scores"
        )
    return {"back": "labels" if nearest else "scores"}


def _decision(item: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    only(item, {"argmax", "threshold"})
    threshold = item.get("threshold")
    if item.get("argmax") and threshold is None:
        return {"decision": "argmax"}
    if item.get("argmax") or not isinstance(threshold, int | float):
        raise PackageError(f"{INFERENCE}: postprocessing: AsDiscreted: argmax or threshold")
    return {"decision": "threshold", "threshold": float(threshold)}


def _check_largest(item: Mapping[str, JsonValue], answers: Mapping[str, JsonValue]) -> None:
    """Segments are tidied as the answers say: they have to say what the bundle does."""
    only(item, {"applied_labels", "num_components", "is_onehot", "connectivity"})
    said, count = item.get("applied_labels"), item.get("num_components", 1)
    if item.get("connectivity") != 1:
        raise PackageError(
            f"{INFERENCE}: postprocessing: {named(item)}d.connectivity: is read as 1 only: that"
            " components hang together face to face"
        )
    labels: Sequence[JsonValue] = said if isinstance(said, list) else [said]
    for value, segment in said_segments(answers).items():
        if (said is None or value in labels) and segment.get("largest") != count:
            raise PackageError(
                f"segmentation.segments: {value}: the bundle keeps the largest: say largest ="
                f" {count}"
            )
