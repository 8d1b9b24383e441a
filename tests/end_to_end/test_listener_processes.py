"""Several processes that take associations, over real sockets and PostgreSQL: one to senders."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE

from node.listeners._procedure_steps import PROCEDURE_STEP
from node.pacs import StandInPacs
from storage.database import migrate
from storage.states import StudyState
from tests.end_to_end.audit import audit
from tests.end_to_end.load import Ledger, RestlessSender
from tests.end_to_end.made_images import CT, MR, Image, Kind, Prototype, Study
from tests.end_to_end.process_tree import Descendants, descendants
from tests.end_to_end.processes import RULES, NodeProcess, storescu, wait_until
from tests.end_to_end.store_scu import StoreAssociation
from tests.end_to_end.watched import WatchedNode
from tests.factories import make_ct_series
from tests.storage.postgres import PostgresServer

MOST_SENDERS = 20
SMALL_CT = Prototype(Kind(modality="CT", sop_class_uid=CT, rows=64, columns=64))
SMALL_MR = Prototype(Kind(modality="MR", sop_class_uid=MR, rows=32, columns=32))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    running = PostgresServer()
    yield running
    running.stop()


@pytest.fixture
def database(server: PostgresServer, request: pytest.FixtureRequest) -> str:
    url = server.create(f"wetread_{abs(hash(request.node.nodeid)):x}")
    migrate(url)
    return f'[database]\nurl = "{url}"'


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    standin = StandInPacs(tmp_path / "pacs", ae_title="PACS", host="127.0.0.1", port=0)
    standin.start()
    yield standin
    standin.stop()


@pytest.fixture
def node(tmp_path: Path, pacs: StandInPacs, database: str) -> Iterator[NodeProcess]:
    process = SharingNode(
        folder=tmp_path / "node", pacs_port=pacs.port, extra=database, listener="processes = 3\n"
    )
    process.write()
    yield process
    process.stop()


@dataclass(kw_only=True)
class SharingNode(WatchedNode):
    """A node with several listening processes, and what can be done to them."""

    rules: str = RULES

    def listening(self) -> dict[int, int]:
        """Return the processes that have their packs, by their number."""
        if self.process is None:
            return {}
        packs = str(self.folder / "data/objects/packs")
        return {
            int(number): pid
            for pid in descendants(self.process.pid)
            for number in _locks(pid, packs)
        }

    def kill_one(self, number: int) -> int:
        """End one of the processes as a crash would; return its id."""
        pid = self.listening()[number]
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_again(self, number: int, pid: int) -> None:
        """Wait until a process that was killed is there again."""
        wait_until(lambda: self.listening().get(number, pid) != pid, "it was started again", 60)

    def answer(self, path: str) -> str:
        """Ask the admin port, whatever the status is."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}") as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""  # it is not there yet

    def owners(self) -> Counter[str]:
        """Return how many open associations each process has."""
        stores = self.stores()
        try:
            with stores.database.reading() as session:
                rows = session.connection().exec_driver_sql(
                    "SELECT owner FROM association WHERE state = 'open'"
                )
                return Counter(str(owner) for (owner,) in rows)
        finally:
            stores.database.close()

    def instances(self, study_instance_uid: str) -> tuple[StudyState, int, int]:
        """Return state, revision and number of instances of a study."""
        stores = self.stores()
        try:
            record = stores.studies.get(study_instance_uid)
        finally:
            stores.database.close()
        return record.state, record.revision, record.instances


def _locks(pid: int, packs: str) -> list[str]:
    """Return the numbers of the folders of packs that a process has for itself."""
    try:
        files = [str(item.readlink()) for item in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []  # it ended
    return re.findall(rf"^{packs}/(\d+)/writer\.lock$", "\n".join(files), re.MULTILINE)


def started(node: SharingNode) -> SharingNode:
    node.start()
    wait_until(lambda: "dimse-1" in node.answer("/readyz"), "the admin page is there too")
    return node


def study(seed: int) -> Study:
    return Study(SMALL_CT, random.Random(seed))  # noqa: S311 - it only makes images


def complaints(node: NodeProcess, ledger: Ledger) -> dict[str, int]:
    stores = node.stores()
    try:
        return {
            name: number for name, number in audit(stores, ledger).complaints().items() if number
        }
    finally:
        stores.database.close()


def test_associations_land_in_every_process_and_their_study_is_one(
    node: SharingNode, tmp_path: Path
) -> None:
    started(node)
    files = make_ct_series(tmp_path / "ct", slices=6, rows=64, columns=64)
    uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    senders: list[StoreAssociation] = []
    while set(node.owners()) != {"TEST\\1", "TEST\\2", "TEST\\3"}:
        assert len(senders) < MOST_SENDERS, node.owners()  # which takes one is for them to race for
        senders.append(StoreAssociation(node.port, calling=f"CT{len(senders)}"))
        wait_until(lambda: sum(node.owners().values()) == len(senders), "its association has a row")
    for sender in senders:
        sender.release()
    storescu(node.port, files[:3])
    storescu(node.port, files[3:])
    record = node.wait_settled(uid)
    assert (record.revision, record.instances) == (1, 6)
    back = [sys.executable, "-m", "node", "send", str(tmp_path / "pacs"), "--port", str(node.port)]
    assert subprocess.run(back, check=False, cwd=node.code, timeout=60).returncode == 0
    for _ in range(6):
        echo = ["echoscu", "-aec", "WETREAD", "127.0.0.1", str(node.port)]
        assert subprocess.run(echo, check=False, timeout=30).returncode == 0
    stores = node.stores()
    try:
        wait_until(lambda: stores.studies.conservation().own_results == 3, "own results are known")
        assert stores.studies.conservation().missing == 0
    finally:
        stores.database.close()


def test_procedure_step_told_to_one_process_completes_what_another_received(
    node: SharingNode,
) -> None:
    node.quiet_seconds = 60.0
    node.write()
    started(node)
    image = study(1).image()
    sender = StoreAssociation(node.port, calling="CT1")
    assert sender.store(image) == 0
    header = dcmread_of(image)
    ae = AE(ae_title="CT1")
    ae.add_requested_context(PROCEDURE_STEP)
    association = ae.associate("127.0.0.1", node.port, ae_title="WETREAD")
    begun, _ = association.send_n_create(step(header, "IN PROGRESS"), PROCEDURE_STEP, "2.25.1")
    ended, _ = association.send_n_set(step(header, "COMPLETED"), PROCEDURE_STEP, "2.25.1")
    association.release()
    sender.release()
    assert (begun.Status, ended.Status) == (0, 0)
    assert node.wait_settled(str(header.StudyInstanceUID)).instances == 1


def dcmread_of(image: Image) -> Dataset:
    return dcmread(BytesIO(image.data_set), force=True, stop_before_pixels=True)


def step(header: Dataset, status: str) -> Dataset:
    told = Dataset()
    told.PerformedProcedureStepStatus = status
    if status == "IN PROGRESS":
        scheduled = Dataset()
        scheduled.StudyInstanceUID = header.StudyInstanceUID
        told.ScheduledStepAttributesSequence = [scheduled]
        return told
    reference, series = Dataset(), Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ReferencedImageSequence = [reference]
    told.PerformedSeriesSequence = [series]
    return told


def test_kill_of_one_process_under_load_loses_nothing_and_its_siblings_go_on(
    node: SharingNode,
) -> None:
    started(node)
    ledger, steady = Ledger(), study(7)
    first = StoreAssociation(node.port, calling="STEADY")
    wait_until(lambda: sum(node.owners().values()) == 1, "the association has a row")
    (owner,) = node.owners()
    spared = int(owner.partition("\\")[2])
    senders = [RestlessSender(n, node.port, ledger, [SMALL_CT, SMALL_MR], 3) for n in range(4)]
    for sender in senders:
        sender.start()
    victim = spared % 3 + 1
    for _ in range(3):
        time.sleep(1.5)
        pid = node.kill_one(victim)
        assert ledger.send(first, steady.image())
        wait_until(lambda: "signal SIGKILL" in node.answer("/readyz"), "it is told", 10)
        node.wait_again(victim, pid)
    wait_until(lambda: "signal SIGKILL" not in node.answer("/readyz"), "all listen again", 60)
    metrics = node.answer("/metrics")
    assert f'wetread_listener_restarts_total{{process="dimse-{victim}"}} 3.0' in metrics
    assert f'wetread_listener_restarts_total{{process="dimse-{spared}"}} 0.0' in metrics
    assert f'wetread_component_ready{{component="dimse-{victim}"}} 1.0' in metrics
    assert node.log().count("listener.process_ended") == 3
    assert ledger.send(first, steady.image())
    for sender in senders:
        sender.stop()
    for sender in senders:
        sender.join(60)
    first.release()
    assert ledger.answers > 20
    assert node.stop() == 0
    assert complaints(node, ledger) == {}


def test_kill_of_the_node_ends_its_processes_and_a_restart_has_everything(
    node: SharingNode,
) -> None:
    started(node)
    ledger = Ledger()
    senders = [RestlessSender(n, node.port, ledger, [SMALL_CT], 5) for n in range(4)]
    for sender in senders:
        sender.start()
    below = Descendants()
    for _ in range(2):
        time.sleep(2)
        below.look(node.process)
        node.kill()
        assert below.left(10) == 0
        started(node)
    for sender in senders:
        sender.stop()
    for sender in senders:
        sender.join(60)
    assert node.stop() == 0
    assert ledger.answers > 10
    assert complaints(node, ledger) == {}


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL], ids=["goes on", "is killed"])
def test_a_study_waits_for_a_process_that_owes_rows(node: SharingNode, end: signal.Signals) -> None:
    node.quiet_seconds = 4.0
    node.write()
    started(node)
    sent = study(11)
    early, late = (StoreAssociation(node.port, calling=name) for name in ("CT1", "CT2"))
    wait_until(lambda: sum(node.owners().values()) == 2, "the associations have rows")
    assert early.store(sent.image()) == 0
    early.release()
    wait_until(lambda: sum(node.owners().values()) == 1, "the first one's end has a row", 3)
    processes = node.listening()
    assert late.store(sent.image()) == 0
    for pid in processes.values():
        os.kill(pid, signal.SIGSTOP)
    time.sleep(8)  # more than the quiet time, and more than a few sweeps
    assert node.instances(sent.study_instance_uid) == (StudyState.RECEIVING, 1, 1)
    for pid in processes.values():
        os.kill(pid, end)
    if end is signal.SIGCONT:
        late.release()
    late.close()
    record = node.wait_settled(sent.study_instance_uid)
    assert (record.revision, record.instances) == (1, 2)


def test_limits_are_those_of_all_processes_together(node: SharingNode) -> None:
    node.listener = "processes = 2\nmax_associations = 3\nmax_associations_per_address = 40\n"
    node.write()
    started(node)
    held = [StoreAssociation(node.port, calling=f"CT{number}") for number in range(3)]
    for _ in range(4):
        with pytest.raises(ConnectionRefusedError, match=r"rejected: \(2, 3, 2\)"):
            StoreAssociation(node.port, calling="ONE-TOO-MANY")
    held.pop().release()
    wait_until(lambda: admitted(node), "the place is free again", 30)
    node.wait_again(1, node.kill_one(1))
    wait_until(lambda: admitted(node), "what it held is free again", 30)
    for sender in held:
        sender.close()


def admitted(node: NodeProcess) -> bool:
    try:
        StoreAssociation(node.port, calling="NEXT").release()
    except OSError:
        return False
    return True


def test_connections_from_one_address_are_counted_over_all_processes(node: SharingNode) -> None:
    node.listener = "processes = 2\nmax_associations_per_address = 3\n"
    node.write()
    started(node)
    held = [StoreAssociation(node.port, calling=f"CT{number}") for number in range(3)]
    with pytest.raises(OSError, match=r"closed|reset"):
        StoreAssociation(node.port, calling="CT4")
    for sender in held:
        sender.release()
    wait_until(lambda: admitted(node), "an address may come again", 30)


def test_a_process_that_cannot_start_stops_the_node_with_its_reason(node: SharingNode) -> None:
    missing = node.folder / "none.pem"
    node.listener = f"""processes = 2
[listeners.dimse.tls]
certificate = "{missing}"
key = "{missing}"
authorities = "{missing}"
"""
    node.write()
    with pytest.raises(AssertionError, match=r"wetread: dimse-\d: .*certificate.* cannot be read"):
        node.start()
    assert node.process is not None
    assert node.process.returncode == 2
