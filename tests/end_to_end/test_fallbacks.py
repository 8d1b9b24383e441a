"""A destination that refuses a class gets the next object of the set, over real associations."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import pytest
from pydicom import dcmread

from storage.records import JsonValue
from tests.end_to_end.fallback_bench import CLASSES, OBJECTS, FallbackBench, new_database
from tests.end_to_end.processes import NodeProcess, storescu
from tests.factories import make_ct_series
from tests.node.delivery.choosy_pacs import Answer, ChoosyPacs

SHIPPED: Final = ("air", "full", "mg-cad", "ohif", "pacs-basic", "slicer", "standard", "weasis")
SQUARE: Final = (5.0, 3.0, 3.0)
REFUSALS: Final[tuple[Answer, ...]] = (0x0122, 0xA900, 0xC000)
Made: TypeAlias = tuple[ChoosyPacs, FallbackBench]
Make: TypeAlias = Callable[..., Made]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_database(tmp_path_factory.mktemp("database"))


@pytest.fixture
def make(tmp_path: Path, database: Path) -> Iterator[Make]:
    """Give a destination and a node that sends to it by a profile."""
    with ExitStack() as stack:

        def made(
            profile: str,
            *,
            without: str = "",
            answers: dict[str, Answer] | None = None,
            seconds: float = 5.0,
        ) -> Made:
            pacs = ChoosyPacs(
                [CLASSES[name] for name in OBJECTS if name != without],
                answers={CLASSES[name]: answer for name, answer in (answers or {}).items()},
            )
            stack.enter_context(pacs)
            shutil.copy(database, tmp_path)
            bench = FallbackBench(tmp_path, pacs.port, profile, seconds=seconds)
            stack.callback(bench.close)
            return pacs, bench

        yield made


def test_a_destination_that_takes_everything_gets_the_first_of_each_set(make: Make) -> None:
    pacs, bench = make("ohif")
    bench.send()
    assert bench.ends() == {
        "segmentation": ("sent", 1),
        "secondary_capture": ("not_needed", 0),
        "text_report": ("sent", 1),
    }
    assert bench.names(pacs.kept) == ["segmentation", "text_report"]


# ---------------------------------------------------------------- refused


def test_a_class_that_is_not_negotiated_is_replaced(make: Make) -> None:
    """NET-18, VIEW-02: no presentation context for the SEG; the picture goes instead."""
    pacs, bench = make("ohif", without="segmentation")
    bench.send()
    assert bench.ends() == {
        "segmentation": ("replaced", 1),
        "secondary_capture": ("sent", 1),
        "text_report": ("sent", 1),
    }
    refused = bench.rows()["segmentation"]
    uid = CLASSES["segmentation"]
    assert (refused.status, refused.error) == (None, f"the destination takes no SOP class {uid}")
    assert sorted(bench.names(pacs.kept)) == ["secondary_capture", "text_report"]
    assert bench.actions("segmentation") == ["delivery.replaced"]
    assert bench.actions("secondary_capture") == ["delivery.released", "delivery.sent"]


@pytest.mark.parametrize("answer", REFUSALS)
def test_an_object_that_is_refused_for_good_is_replaced(make: Make, answer: int) -> None:
    """NET-17, NET-18: never sent again, and the next of its set goes."""
    pacs, bench = make("ohif", answers={"segmentation": answer})
    bench.send()
    bench.later()
    assert bench.ends() == {
        "segmentation": ("replaced", 1),
        "secondary_capture": ("sent", 1),
        "text_report": ("sent", 1),
    }
    assert bench.rows()["segmentation"].status == answer
    assert pacs.asked[CLASSES["segmentation"]] == 1


@pytest.mark.parametrize("refused", OBJECTS)
@pytest.mark.parametrize("profile", SHIPPED)
def test_whatever_class_is_refused_each_profile_delivers_and_each_delivery_ends(
    make: Make, profile: str, refused: str
) -> None:
    """VIEW-02: each class in turn, by each profile that ships."""
    pacs, bench = make(profile, without=refused)
    bench.send()
    bench.later()
    ends = bench.ends()
    assert {state for state, _ in ends.values()} <= {"sent", "replaced", "not_needed"}
    sent = {name for name, (state, _) in ends.items() if state == "sent"}
    assert sorted(bench.names(pacs.kept)) == sorted(sent), "once each"
    assert sent
    if refused in ends:
        assert ends[refused] in (("replaced", 1), ("not_needed", 0))
    assert all(attempts == (0 if state == "not_needed" else 1) for state, attempts in ends.values())


def test_a_destination_that_takes_nothing_leaves_one_failure_that_everybody_sees(
    make: Make,
) -> None:
    """The picture went last, in the place of the others."""
    everything: dict[str, Answer] = dict.fromkeys(OBJECTS, 0x0122)
    pacs, bench = make("ohif", answers=everything)
    bench.send()
    assert bench.ends() == {
        "segmentation": ("replaced", 1),
        "secondary_capture": ("failed", 1),
        "text_report": ("replaced", 1),
    }
    assert pacs.kept == []


def test_the_next_of_the_next_goes_where_both_are_refused(make: Make) -> None:
    _, bench = make("slicer", without="segmentation", answers={"secondary_capture": 0xC000})
    bench.send()
    assert bench.ends() == {
        "segmentation": ("replaced", 1),
        "measurement_report": ("sent", 1),
        "secondary_capture": ("replaced", 1),
        "text_report": ("sent", 1),
    }


# ---------------------------------------------------------------- not refused


def test_a_warning_is_no_refusal(make: Make) -> None:
    """0xB000: kept, so that nothing goes in its place."""
    _, bench = make("ohif", answers={"segmentation": 0xB000})
    bench.send()
    assert bench.ends() == {
        "segmentation": ("warned", 1),
        "secondary_capture": ("not_needed", 0),
        "text_report": ("sent", 1),
    }


def test_out_of_resources_is_waited_for_and_the_reserve_with_it(make: Make) -> None:
    """0xA700: the same file again, until it is taken; nothing goes in its place."""
    pacs, bench = make("ohif", answers={"segmentation": 0xA700})
    bench.send()
    for attempts in (1, 2, 3, 4):
        assert bench.ends() == {
            "segmentation": ("queued", attempts),
            "secondary_capture": ("reserved", 0),
            "text_report": ("sent", 1),
        }
        bench.later()
    pacs.answers.clear()
    bench.later()
    assert bench.ends() == {
        "segmentation": ("sent", 6),
        "secondary_capture": ("not_needed", 0),
        "text_report": ("sent", 1),
    }
    assert pacs.asked[CLASSES["segmentation"]] == 6


@pytest.mark.parametrize("answer", ["abort", "stall"])
def test_an_object_that_ends_the_association_holds_up_no_other_and_gets_a_stand_in(
    make: Make, answer: Answer
) -> None:
    """VIEW-02: tried on, and after two attempts without an answer the next is sent all the same."""
    pacs, bench = make("ohif", answers={"segmentation": answer}, seconds=0.5)
    bench.send()
    assert bench.ends() == {
        "segmentation": ("queued", 1),
        "secondary_capture": ("reserved", 0),
        "text_report": ("sent", 2),  # once it was not begun: the association was gone
    }
    bench.later()
    assert bench.ends() == {
        "segmentation": ("queued", 2),
        "secondary_capture": ("sent", 1),
        "text_report": ("sent", 2),
    }
    assert "no answer" in bench.rows()["segmentation"].error
    pacs.answers.clear()
    bench.later()
    bench.later()
    state, attempts = bench.ends()["segmentation"]
    assert (state, attempts) == ("sent", 3)
    assert bench.actions("segmentation") == [
        "delivery.retried",
        "delivery.retried",
        "delivery.sent",
    ]
    assert sorted(bench.names(pacs.kept)) == ["secondary_capture", "segmentation", "text_report"]


def test_every_attempt_sends_the_same_file(make: Make) -> None:
    """UID-02: same UID, same bytes; what is in reserve was encoded with the others."""
    pacs, bench = make("ohif", answers={"segmentation": 0xA700})
    bench.send()
    bench.later()
    pacs.answers[CLASSES["segmentation"]] = 0x0122
    bench.later()
    seg, picture = (bench.rows()[name] for name in ("segmentation", "secondary_capture"))
    assert len(pacs.bytes[seg.sop_instance_uid]) == 3
    assert len(set(pacs.bytes[seg.sop_instance_uid])) == 1
    assert (seg.state, picture.state) == ("replaced", "sent")


def test_what_is_refused_is_shown_until_it_is_taken_again(make: Make) -> None:
    """VIEW-01: learnt from rejected contexts; what a person sends again is learnt, too."""
    pacs, bench = make("ohif", answers={"segmentation": 0x0122})
    bench.send()
    refusing = [item for item in bench.held.deliveries.sop_classes() if item.refuses]
    assert [(item.sop_class_uid, item.error) for item in refusing] == [
        (CLASSES["segmentation"], "SOP class not supported")
    ]
    pacs.answers.clear()
    bench.held.clock.advance(60)
    bench.held.deliveries.retry(bench.rows()["segmentation"].id, by="admin")
    bench.send()
    assert bench.ends()["segmentation"] == ("sent", 2)
    assert not any(item.refuses for item in bench.held.deliveries.sop_classes())


# ---------------------------------------------------------------- a whole node


@dataclass(kw_only=True)
class ProfiledNode(NodeProcess):
    """A node whose one destination has a profile."""

    profile: str

    def configuration(self) -> str:
        """Return the TOML text, with the profile."""
        ours = 'calling_ae_title = "WETREAD"'
        return super().configuration().replace(ours, f'{ours}\nprofile = "{self.profile}"')


@dataclass(frozen=True, kw_only=True)
class Read:
    """What came of a study: state and attempts by the writer of each result, and the summary."""

    ends: Mapping[str, tuple[str, int]]
    summary: Mapping[str, JsonValue]


def read_a_ct(
    folder: Path, profile: str, pacs_port: int, spacing: tuple[float, float, float] = SQUARE
) -> Read:
    """Let a node read a small CT."""
    files = make_ct_series(folder / "ct", slices=5, rows=64, columns=64, spacing=spacing)
    study = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    with ProfiledNode(folder=folder / "node", pacs_port=pacs_port, profile=profile) as node:
        storescu(node.port, files)
        record = node.wait_settled(study)
        stores = node.stores()
        try:
            writers = {item.id: item.writer for item in stores.jobs.results(study_id=record.id)}
            ends = {
                writers[item.result_id]: (item.state.value, item.attempts)
                for item in stores.deliveries.list(study_id=record.id)
            }
            (job,) = stores.jobs.list(study_id=record.id)
            return Read(ends=ends, summary=job.summary)
        finally:
            stores.database.close()


def test_a_node_sends_what_stands_in_for_a_seg_that_is_not_taken(tmp_path: Path) -> None:
    """NET-18, VIEW-02: from the C-STORE of a CT to the report that its destination takes."""
    takes = [CLASSES["text_report"], CLASSES["measurement_report"]]
    with ChoosyPacs(takes) as pacs:
        ends = read_a_ct(tmp_path, "slicer", pacs.port).ends
        assert pacs.asked == dict.fromkeys(takes, 1)
    assert ends["segmentation"] == ("replaced", 1)
    assert ends["measurement_report"] == ends["text_report"] == ("sent", 1)


def test_a_node_writes_no_object_that_its_destinations_do_not_want(tmp_path: Path) -> None:
    """The ohif profile has no report without coordinates: none is written."""
    with ChoosyPacs(CLASSES.values()) as pacs:
        read = read_a_ct(tmp_path, "ohif", pacs.port)
    assert "measurement_report" not in read.ends
    sent = {name for name, end in read.ends.items() if end == ("sent", 1)}
    assert sent == {"segmentation", "box_report", "text_report"}
    assert "left_out" not in read.summary


def test_a_node_leaves_out_what_a_viewer_would_draw_in_the_wrong_place_and_says_so(
    tmp_path: Path,
) -> None:
    """VIEW-02: OHIF gets no boxes on pixels that are not square; text goes as ever."""
    with ChoosyPacs(CLASSES.values()) as pacs:
        read = read_a_ct(tmp_path, "ohif", pacs.port, spacing=(5.0, 3.0, 2.0))
    assert "box_report" not in read.ends
    assert read.ends["segmentation"] == read.ends["text_report"] == ("sent", 1)
    assert read.summary["left_out"] == {"pacs": ["box_report"]}
