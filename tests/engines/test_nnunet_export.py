"""nnU-Net v2 exports beside nnU-Net's own inference.

What its own code labelled lies in `nnunet`; `nnunet_reference` wrote it with release 2.8.1.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import PackageError
from engines.importing import import_model
from tests.engines.foreign import answers, ct, labelled
from tests.engines.nnunet_plans import (
    DATASET,
    LABELS,
    NETWORK,
    PLANNED,
    VARIANTS,
    in_float32,
    plans,
)

MIRRORED = '"Mirrored axes" = "0, 1, 2"'


def export(folder: Path, said: dict[str, Any], dataset: dict[str, Any] = DATASET) -> Path:
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(said))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    shutil.copy(NETWORK, folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return ct(tmp_path_factory.mktemp("ct"))


@pytest.mark.parametrize("variant", [*sorted(VARIANTS), "planned"])
def test_an_imported_export_labels_as_nnunet_does(
    variant: str, files: list[Path], tmp_path: Path
) -> None:
    """At most 1 voxel in 1000 differs where scores are kept in float32, as they are here.

    nnU-Net adds up in half precision: that alone moves up to 4 voxels in 1000, where two scores of
    these untrained networks are alike.
    """
    folder = PLANNED if variant == "planned" else export(tmp_path / "export", VARIANTS[variant])
    package = import_model(
        folder, answers(tmp_path / "answers.toml", parameters=MIRRORED), tmp_path / "package"
    )
    with np.load(LABELS) as kept:
        shipped, exact = kept[variant], kept[in_float32(variant)]
    found = labelled(package, files)
    assert 0.02 < exact.mean() < 0.98
    assert np.mean(found != exact) <= 1e-3
    assert np.mean(found != shipped) <= np.mean(exact != shipped) + 1e-3 <= 5e-3


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
