"""Imported engines on real images: C-STORE in, result objects at the PACS, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from engines.importing import import_model
from node.pacs import StandInPacs
from storage.records import JobRecord
from storage.states import JobState
from tests.end_to_end.processes import NodeProcess
from tests.end_to_end.test_real_data import job_of, jobs_of, volumes
from tests.factories import uid

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
LUNGS_SECONDS = 240.0  # many windows: longer than others where all cores have other work
MODELS = {
    "brain_deepbet": "brain_deepbet",
    "brain_hippodeep": "brain_hippodeep",
    "brain_meshnet_gwm_light": "brain_meshnet_gwm/gwm_light_5ch.onnx",
    "nuclei_unet2d_broad": "nuclei_unet2d_broad/weights.onnx",
    "lv_unet_sunnybrook": "lv_unet_sunnybrook/lv_unet.onnx",
    "lung_unet_ct": "lung_unet_ct/lung_unet.onnx",
    "cxr_nih_mobilenetv3_int8": "cxr_nih_mobilenetv3/model_int8.onnx",
    "cxr_nih_mobilenetv3": "cxr_nih_mobilenetv3/cxr_mobilenetv3_fp32.onnx",
}
RULES = """
[[rules]]
name = "chest-ct"
owner = "tests"
priority = "routine"
trigger = "series"
engines = ["lung-unet-ct"]
destinations = ["pacs"]
conditions = {field = "Modality", op = "equals", value = "CT", level = "series"}

[[rules]]
name = "chest-radiograph"
owner = "tests"
priority = "routine"
trigger = "series"
engines = ["cxr-nih-mobilenetv3", "cxr-nih-mobilenetv3-int8"]
destinations = ["pacs"]
conditions = {field = "Modality", op = "equals", value = "DX", level = "series"}

[[rules]]
name = "brain"
owner = "tests"
priority = "routine"
trigger = "series"
engines = ["brain-deepbet", "brain-hippodeep", "brain-meshnet-gwm-light"]
destinations = ["pacs"]
conditions = {field = "BodyPartExamined", op = "equals", value = "BRAIN", level = "series"}

[[rules]]
name = "slide"
owner = "tests"
priority = "routine"
trigger = "series"
engines = ["nuclei-unet2d-broad"]
destinations = ["pacs"]
conditions = {field = "Modality", op = "equals", value = "SM", level = "series"}

[[rules]]
name = "heart"
owner = "tests"
priority = "routine"
trigger = "series"
engines = ["lv-unet-sunnybrook"]
destinations = ["pacs"]
conditions = {field = "BodyPartExamined", op = "equals", value = "HEART", level = "series"}
"""


@dataclass(frozen=True)
class Site:
    node: NodeProcess
    received: Path

    def results(self, study_instance_uid: str) -> dict[str, Dataset]:
        """Return what came of a study, by the series description."""
        objects = [dcmread(path) for path in self.received.rglob("*.dcm")]
        return {
            str(item.SeriesDescription): item
            for item in objects
            if item.StudyInstanceUID == study_instance_uid
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not SHARED.is_dir():
        pytest.skip("NOT RUN: ../shared is not on this machine")
    folder = tmp_path_factory.mktemp("imported")
    for name, model in MODELS.items():
        answers = ROOT / "config" / "engines" / name / "engine.toml"
        (folder / "engines").mkdir(exist_ok=True)
        import_model(SHARED / "models" / model, answers, folder / "engines" / name)
    pacs = StandInPacs(folder / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    pacs.start()
    extra = f'[engines]\nfolders = ["{folder / "engines"}"]\nladder = ["openvino"]\n'
    with NodeProcess(
        folder=folder / "node", pacs_port=pacs.port, rules=RULES, extra=extra
    ) as process:
        yield Site(process, folder / "pacs")
    pacs.stop()


def study_of(files: list[Path]) -> str:
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def test_a_chest_ct_comes_back_with_its_lungs(site: Site) -> None:
    files = sorted((SHARED / "data" / "petct_acrin_042" / "ct").glob("*.dcm"))
    job = job_of(site.node, files, seconds=LUNGS_SECONDS)
    assert volumes(job) == {"lungs": pytest.approx(5774, rel=0.002)}
    results = site.results(study_of(files))
    assert set(results) == {
        "AI lung-unet-ct segmentation (unverified)",
        "AI lung-unet-ct measurements (unverified)",
        "AI lung-unet-ct report (unverified)",
    }
    measured = results["AI lung-unet-ct measurements (unverified)"]
    assert "Runtime=openvino cpu float32" in sentences(measured)
    (segment,) = results["AI lung-unet-ct segmentation (unverified)"].SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "39607008"


def test_a_radiograph_comes_back_with_what_it_shows_and_what_not(site: Site) -> None:
    files = [SHARED / "data" / "cxr_nih" / "00013257_000.dcm"]
    job, other = sorted(jobs_of(site.node, files), key=lambda job: job.engine)
    findings = job.summary["findings"]
    assert isinstance(findings, list)
    assert other.summary["verdict"] == job.summary["verdict"], "the net of 8-bit integers agrees"
    results = site.results(study_of(files))
    assert set(results) == {
        f"AI {engine} {what} (unverified)"
        for engine in (job.engine, other.engine)
        for what in ("findings", "report")
    }
    report = results["AI cxr-nih-mobilenetv3 findings (unverified)"]
    assert report.PreliminaryFlag == "PRELIMINARY"
    said = values(report)
    assert said.count("Present") == len(findings)
    assert said.count("Absent") == 14 - len(findings)


def test_a_head_is_refused_with_the_reason(site: Site) -> None:
    files = sorted((SHARED / "data" / "ct_head_gantry_tilt" / "ge").rglob("*.dcm"))
    job = job_of(site.node, files)
    assert job.state is JobState.REFUSED
    reason = job.summary["reason"]
    assert isinstance(reason, dict)
    assert reason["code"] == "BODY_PART"
    results = site.results(study_of(files))
    assert set(results) == {"AI lung-unet-ct report (unverified)"}
    assert "NOT ANALYSED: Body part" in sentences(results["AI lung-unet-ct report (unverified)"])


def test_a_beating_heart_comes_back_with_its_ejection_fraction(site: Site) -> None:
    files = sorted((SHARED / "data" / "mr_cine_sunnybrook" / "SC-N-09").glob("*.dcm"))
    job_of(site.node, files)
    results = site.results(study_of(files))
    assert set(results) == {
        "AI lv-unet-sunnybrook segmentation (unverified)",
        "AI lv-unet-sunnybrook measurements (unverified)",
        "AI lv-unet-sunnybrook report (unverified)",
    }
    outlines = results["AI lv-unet-sunnybrook segmentation (unverified)"]
    assert [str(item.SegmentLabel) for item in outlines.SegmentSequence] == [
        "Left ventricle, end diastole",
        "Left ventricle, end systole",
    ]
    said = sentences(results["AI lv-unet-sunnybrook report (unverified)"])
    assert "Left ventricular ejection fraction by MR 67.56 %" in said


def test_a_head_comes_back_with_brain_matter_and_hippocampi(site: Site) -> None:
    """One Enhanced MR object, three engines.

    A box and then a mask; a template and then regions; grey and white matter of the whole head.
    """
    files = [SHARED / "data" / "mr_enhanced_t1_dti" / "anat-T1w_acq-tfl_6.dcm"]
    found = {name: value for job in jobs_of(site.node, files) for name, value in labelled(job)}
    assert found == {
        "Brain": pytest.approx(1575, rel=0.005),  # of the same head, as acquired just before
        "Intracranial space": pytest.approx(1472, abs=0.5),
        "Left hippocampus": pytest.approx(3.80, abs=0.005),
        "Right hippocampus": pytest.approx(3.99, abs=0.005),
        "Cerebral white matter": pytest.approx(180, rel=0.04),
        "Cerebral grey matter": pytest.approx(406, rel=0.04),
    }
    results = site.results(study_of(files))
    assert len(results) == 9
    masks = results["AI brain-hippodeep segmentation (unverified)"]
    sides = [
        str(item.SegmentedPropertyTypeCodeSequence[0]
            .SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning)
        for item in masks.SegmentSequence[1:]
    ]  # fmt: skip
    assert sides == ["Right", "Left"]


def test_a_slide_comes_back_with_its_nuclei(site: Site) -> None:
    files = [SHARED / "data" / "wsm_cmu1" / "region.dcm"]
    job_of(site.node, files)
    results = site.results(study_of(files))
    assert set(results) == {
        "AI nuclei-unet2d-broad annotations (unverified)",
        "AI nuclei-unet2d-broad report (unverified)",
    }
    annotations = results["AI nuclei-unet2d-broad annotations (unverified)"]
    (group,) = annotations.AnnotationGroupSequence
    assert int(group.NumberOfAnnotations) == pytest.approx(667, rel=0.03)
    assert group.GraphicType == "POLYGON"
    said = sentences(results["AI nuclei-unet2d-broad report (unverified)"])
    assert f"Nuclei: Number of outlined objects {group.NumberOfAnnotations};" in said


def labelled(job: JobRecord) -> Iterator[tuple[str, float]]:
    """Yield label and volume of each finding."""
    findings = job.summary["findings"]
    assert isinstance(findings, list)
    for finding in findings:
        assert isinstance(finding, dict)
        measurements = finding["measurements"]
        assert isinstance(measurements, list)
        assert isinstance(measurements[0], dict)
        yield str(finding["label"]), float(str(measurements[0]["value"]))


def test_a_negative_ejection_fraction_is_held_back_for_all_to_see(
    site: Site, tmp_path: Path
) -> None:
    """A heart whose phases are told the wrong way round: it fills when it should empty."""
    files = []
    for path in sorted((SHARED / "data" / "mr_cine_sunnybrook" / "SC-N-09").glob("*.dcm")):
        item = dcmread(path)
        item.StudyInstanceUID, item.SeriesInstanceUID = uid("other", 1), uid("other", 2)
        item.SOPInstanceUID = UID(uid("other", path.name))
        item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
        item.TemporalPositionIdentifier = 3 - int(item.TemporalPositionIdentifier)
        files.append(tmp_path / path.name)
        item.save_as(files[-1])
    job = job_of(site.node, files)
    assert job.state is JobState.REFUSED
    results = site.results(study_of(files))
    assert set(results) == {"AI lv-unet-sunnybrook report (unverified)"}
    said = sentences(results["AI lv-unet-sunnybrook report (unverified)"])
    assert "NOT ANALYSED: Result of the engine not plausible" in said
    assert "the ejection fraction would be -208.3 %" in said


def values(item: Dataset) -> list[str]:
    """Return the meaning of every coded value of a document."""
    own = [str(code.CodeMeaning) for code in item.get("ConceptCodeSequence", ())]
    return own + [found for child in item.get("ContentSequence", ()) for found in values(child)]


def sentences(item: Dataset) -> str:
    """Return all that a document says in words."""
    below = "\n".join(sentences(child) for child in item.get("ContentSequence", ()))
    return f"{item.get('TextValue', '')}\n{below}"
