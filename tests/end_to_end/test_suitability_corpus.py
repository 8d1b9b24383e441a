"""Damaged and wrong series through the node: a coded refusal for each at the PACS, none silent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from pydicom import dcmread
from pydicom.dataset import Dataset

from engines.importing import import_model
from node.delivery.dimse import DimseTarget, DimseTargetSettings
from node.interfaces import SendVerdict, Sent
from node.pacs import StandInPacs
from storage.records import JobRecord
from storage.states import JobState
from tests.end_to_end.processes import NodeProcess
from tests.end_to_end.test_imported_engines import sentences
from tests.end_to_end.test_real_data import outgoing
from tests.end_to_end.unfit import CASES, FITTING, Case

ENGINE = """
name = "fit-{key}"
version = "1.0.0"
title = "Fitting {key}"
intended_use = "Labels whatever is bright, to test what it may be run on."
clinical_use = "Not for clinical use: a test."
task = "segmentation"
runtime = "onnxruntime"
[model]
file = "net.onnx"
[golden]
inputs = "golden/inputs.npz"
expected = "golden/expected.npz"
tolerance = 0.001
[resources]
soft_deadline_seconds = 60.0
hard_deadline_seconds = 120.0
memory_mib = 2048
pixel_mib = 256
[suitability]
min_slices = {least}
max_slices = 10
max_slice_distance = 8.0
max_pixel_size = 4.0
min_matrix = 32
{suitability}
[segmentation.recipe.preprocessing]
[segmentation.recipe.inference]
input = "image"
output = "score"
pattern = "slices"
decision = "threshold"
threshold = 0.0
[[segmentation.segments]]
key = "bright"
value = 1
label = "Bright"
category = {{value = "91723000", scheme = "SCT", meaning = "Anatomical Structure"}}
type = {{value = "272673000", scheme = "SCT", meaning = "Bone"}}
colour = [200, 200, 200]
"""
SUITABILITY = {
    "CT": """modalities = ["CT"]
sop_classes = ["1.2.840.10008.5.1.4.1.1.2"]
unit = "HU"
plane = "axial"
body_parts = ["CHEST"]
image_types_excluded = ["MIP"]
attributes = [{keyword = "ContrastBolusAgent", present = true}]""",
    "PT": """modalities = ["PT"]
sop_classes = ["1.2.840.10008.5.1.4.1.1.128"]
unit = "SUV\"""",
    "US": """modalities = ["US"]
sop_classes = ["1.2.840.10008.5.1.4.1.1.6.1"]
calibration = "ultrasound\"""",
    "MR": """modalities = ["MR"]
sop_classes = ["1.2.840.10008.5.1.4.1.1.4"]
attributes = [{keyword = "Laterality", allowed = ["L"], present = true}]""",
    "DX": """modalities = ["DX"]
sop_classes = ["1.2.840.10008.5.1.4.1.1.1.1"]
photometrics = ["MONOCHROME2"]
attributes = [{keyword = "ViewPosition", allowed = ["PA", "AP"]}]""",
}
PICTURES = """
[classification.preprocessing]
matrix = [16, 16]
[classification.inference]
input = "image"
output = "score"
activation = "none"
[[classification.classes]]
key = "bright"
index = 0
label = "Bright"
type = {value = "272673000", scheme = "SCT", meaning = "Bone"}
threshold = 0.5
"""
RULE = """
[[rules]]
name = "{modality}"
owner = "tests"
priority = "routine"
trigger = "series"
engines = ["fit-{engine}"]
destinations = ["pacs"]
conditions = {{field = "Modality", op = "equals", value = "{modality}", level = "series"}}
"""


def echo_net(path: Path, *, classes: bool) -> Path:
    """Write a net that gives back its image, or the share of full brightness of all of it."""
    if classes:
        nodes = [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Sigmoid", ["mean"], ["score"]),
        ]
        got = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])
    else:
        nodes = [helper.make_node("Identity", ["image"], ["score"])]
        got = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1, "h", "w"])
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "h", "w"])
    graph = helper.make_graph(nodes, "echo", [given], [got])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))
    return path


def make_engine(folder: Path, key: str) -> None:
    text = ENGINE.format(key=key.lower(), least=4 if key == "CT" else 1,
                         suitability=SUITABILITY[key])  # fmt: skip
    if key == "DX":
        text = text.partition("[segmentation.")[0].replace('"segmentation"', '"classification"')
        text += PICTURES
    answers = folder / f"{key}.toml"
    answers.write_text(text)
    net = echo_net(folder / f"{key}.onnx", classes=key == "DX")
    import_model(net, answers, folder / "engines" / key.lower())


@dataclass(frozen=True)
class Sending:
    """What came of every case: its job, and the objects at the PACS, by Study Instance UID."""

    studies: dict[str, str]
    jobs: dict[str, JobRecord]
    received: dict[str, list[Dataset]]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sending:
    """Send all studies to one node, one after another, and wait until all are settled."""
    folder = tmp_path_factory.mktemp("unfit")
    (folder / "engines").mkdir()
    for key in SUITABILITY:
        make_engine(folder, key)
    rules = "".join(RULE.format(modality=key, engine=key.lower()) for key in SUITABILITY)
    rules += RULE.format(modality="NM", engine="ct")
    pacs = StandInPacs(folder / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    pacs.start()
    extra = f'[engines]\nfolders = ["{folder / "engines"}"]\n'
    with NodeProcess(folder=folder / "node", pacs_port=pacs.port, rules=rules, extra=extra) as node:
        studies = send_all(node, folder)
        jobs = {name: job_of(node, study) for name, study in studies.items()}
    pacs.stop()
    received: dict[str, list[Dataset]] = {}
    for path in (folder / "pacs").rglob("*.dcm"):
        item = dcmread(path)
        received.setdefault(str(item.StudyInstanceUID), []).append(item)
    return Sending(studies, jobs, received)


def send_all(node: NodeProcess, folder: Path) -> dict[str, str]:
    target = DimseTarget(DimseTargetSettings(host="127.0.0.1", port=node.port, ae_title="WETREAD"))
    studies = {}
    for seed, (name, case) in enumerate([*CASES.items(), *FITTING.items()], 1):
        files = case.write(folder / "sent" / str(seed), seed)
        studies[name] = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
        verdicts: list[SendVerdict] = []

        def report(_: int, answer: Sent, verdicts: list[SendVerdict] = verdicts) -> None:
            verdicts.append(answer.verdict)

        target.send(outgoing(files), report)
        assert verdicts == [SendVerdict.ACCEPTED] * len(files), name
    return studies


def job_of(node: NodeProcess, study: str) -> JobRecord:
    record = node.wait_settled(study)
    stores = node.stores()
    try:
        (job,) = stores.jobs.list(study_id=record.id)
        return job
    finally:
        stores.database.close()


@pytest.mark.parametrize("name", sorted(CASES))
def test_an_unfit_series_is_refused_with_its_code_at_the_pacs(name: str, sent: Sending) -> None:
    """GEO-03 to GEO-06, GEO-08, GEO-09, PIX-07, PIX-08, PIX-11 (the view), PIX-12."""
    job, case = sent.jobs[name], CASES[name]
    assert job.state is JobState.REFUSED, job.summary
    reason = job.summary["reason"]
    assert isinstance(reason, dict)
    assert reason["code"] == case.code, job.summary
    (report,) = sent.received[sent.studies[name]]
    assert codes(report).count(("99WETREAD", case.code)) == 1
    assert f"NOT ANALYSED: {reason['meaning']}." in sentences(report)
    assert "this does not mean a normal finding" in sentences(report)


@pytest.mark.parametrize("name", sorted(FITTING))
def test_the_same_series_without_its_fault_is_analysed(name: str, sent: Sending) -> None:
    assert sent.jobs[name].state is JobState.SUCCEEDED, sent.jobs[name].summary
    assert "NOT ANALYSED" not in "".join(map(sentences, sent.received[sent.studies[name]]))


def test_the_corpus_is_as_large_and_as_varied_as_it_says() -> None:
    assert len(CASES) >= 30
    assert len({case.code for case in CASES.values()}) >= 25
    assert all(isinstance(case, Case) and case.code for case in CASES.values())


def codes(item: Dataset) -> list[tuple[str, str]]:
    """Return scheme and value of every coded value of a document."""
    own = [
        (str(code.CodingSchemeDesignator), str(code.CodeValue))
        for code in item.get("ConceptCodeSequence", ())
    ]
    return own + [found for child in item.get("ContentSequence", ()) for found in codes(child)]
