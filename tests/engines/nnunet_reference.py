"""Writes what nnU-Net's own code makes of the phantom, beside which imported exports are tested.

`pip install -e .[nnunet]`, then `python -m tests.engines.nnunet_reference`. It writes the folder
`nnunet`: a network and what nnU-Net's predictor labels with it under each of the plans of
`nnunet_plans`; and an export whose plans come from nnU-Net's planner and whose network is of its
architecture. nnunetv2 brings some forty packages, so tests read these files and do without it.

nnU-Net adds scores and weights of windows up in half precision, which decides where two scores are
alike; so what it labels with these in float32 is written too.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.packing import write_arrays
from tests.engines.foreign import balanced, ct, exported, small_net
from tests.engines.nnunet_plans import (
    DATASET,
    LABELS,
    NETWORK,
    PLANNED,
    SPACING,
    VARIANTS,
    in_float32,
    read_values,
)
from tests.factories import make_ct_series

Network: TypeAlias = Any
"""Of torch, whose types are not followed."""
Plans: TypeAlias = Mapping[str, Any]
Values: TypeAlias = npt.NDArray[np.float64]
FEATURES: Final = 2
"""Of the first stage, in place of the 32 that are planned: the network is kept with the tests."""
CASES: Final = 3
DENSE: Final = 200.0
"""In HU: what the made training cases call dense is above it."""


def main() -> None:
    """Write everything anew."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        values = read_values(ct(work / "ct"))
        labels = of_both("planned", *planned(work), values)
        net = small_net(5)
        exported(net, NETWORK)
        for variant, said in VARIANTS.items():
            labels |= of_both(variant, said, DATASET, net, values)
    write_arrays(LABELS, labels)


def of_both(
    name: str, said: Plans, dataset: Plans, net: Network, values: Values
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return what is labelled as nnU-Net is shipped, and by it with scores kept in float32."""
    import torch

    shipped = predicted(said, dataset, net, values)
    half = torch.half
    torch.half = torch.float32
    try:
        return {name: shipped, in_float32(name): predicted(said, dataset, net, values)}
    finally:
        torch.half = half


def planned(work: Path) -> tuple[dict[str, Any], dict[str, Any], Network]:
    """Have a data set planned, write the export; return plans, dataset.json and the network."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    said, dataset = plans_of_nnunet(work)
    configuration = said["configurations"]["3d_fullres"]
    architecture = configuration["architecture"]
    stages = architecture["arch_kwargs"]["n_stages"]
    architecture["arch_kwargs"]["features_per_stage"] = [FEATURES * 2**n for n in range(stages)]
    torch.manual_seed(3)
    net = get_network_from_plans(
        architecture["network_class_name"], architecture["arch_kwargs"],
        architecture["_kw_requires_import"], 1, 2, deep_supervision=False,
    )  # fmt: skip
    balanced(net, net.decoder.seg_layers[-1], tuple(configuration["patch_size"]))
    exported(net, PLANNED / "network.onnx")
    (PLANNED / "plans.json").write_text(json.dumps(said, indent=1))
    (PLANNED / "dataset.json").write_text(json.dumps(dataset, indent=1))
    return said, dataset, net


def plans_of_nnunet(work: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return plans.json and dataset.json of made cases, whose fingerprint nnU-Net takes."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (work / name).mkdir()
        os.environ[name] = str(work / name)
    import SimpleITK
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )

    folder = work / "nnUNet_raw" / "Dataset001_Phantom"
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for seed in range(CASES):
        files = make_ct_series(
            work / f"case{seed}", slices=24, rows=56, columns=56, noise=60.0, seed=seed,
            spacing=(3.6, 2.5, 2.5), slice_thickness=3.6,
        )  # fmt: skip
        values = read_values(files).astype(np.float32)
        for name, array in (
            (f"imagesTr/case{seed}_0000", values),
            (f"labelsTr/case{seed}", (values > DENSE).astype(np.uint8)),
        ):
            image = SimpleITK.GetImageFromArray(array)
            image.SetSpacing((2.5, 2.5, 3.6))
            SimpleITK.WriteImage(image, folder / f"{name}.nii.gz")
    dataset = {**DATASET, "numTraining": CASES}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    DatasetFingerprintExtractor(1, num_processes=1).run()
    ExperimentPlanner(1).plan_experiment()
    written = work / "nnUNet_preprocessed" / folder.name / "nnUNetPlans.json"
    said: dict[str, Any] = json.loads(written.read_text())
    return said, dataset


def predicted(said: Plans, dataset: Plans, net: Network, values: Values) -> npt.NDArray[np.bool_]:
    """Return where nnU-Net's predictor labels a volume of HU, bool [slice, row, column]."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(dict(said))
    predictor = nnUNetPredictor(
        perform_everything_on_device=False, device=torch.device("cpu"),
        allow_tqdm=False,
    )  # fmt: skip
    predictor.manual_initialization(
        net, plans, plans.get_configuration("3d_fullres"), [net.state_dict()], dict(dataset),
        "nnUNetTrainer", (0, 1, 2),
    )  # fmt: skip
    found = predictor.predict_single_npy_array(
        values[None].astype(np.float32), {"spacing": list(SPACING)}
    )
    mask: npt.NDArray[np.bool_] = np.asarray(found) == 1
    return mask


if __name__ == "__main__":
    main()
