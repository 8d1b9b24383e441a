from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engines.archives import export_package, import_archive
from engines.errors import PackageError
from node.cli import app
from tests.end_to_end.packages import shipped_package


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "body.zip"
    export_package(shipped_package("ct-body-composition"), path)
    return path


def test_a_package_comes_out_of_its_archive_as_it_went_in(archive: Path, tmp_path: Path) -> None:
    folder = shipped_package("ct-body-composition")
    again = tmp_path / "again.zip"
    package = export_package(folder, again)
    assert again.read_bytes() == archive.read_bytes()
    read = import_archive(archive, tmp_path / "engines" / "body")
    assert (read.name, read.version) == (package.name, package.version)
    assert read.digest == package.digest
    assert read.folder == tmp_path / "engines" / "body"
    assert [path.name for path in (tmp_path / "engines").iterdir()] == ["body"]


def test_nothing_is_overwritten(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"body\.zip: exists already"):
        export_package(shipped_package("ct-body-composition"), archive)
    (tmp_path / "there").mkdir()
    with pytest.raises(PackageError, match="there: exists already"):
        import_archive(archive, tmp_path / "there")


def _adds(name: str, *, mode: int = 0, twice: bool = False) -> Callable[[Path], None]:
    def change(archive: Path) -> None:
        with zipfile.ZipFile(archive, "a") as packed:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            for _ in range(1 + twice):
                packed.writestr(member, b"x")

    return change


def _other_bytes(archive: Path) -> None:
    """Exchange the model: the archive is whole, its `engine.toml` says another digest."""
    with zipfile.ZipFile(archive) as packed:
        content = {name: packed.read(name) for name in packed.namelist()}
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in content.items():
            packed.writestr(name, data + b"x" if name.endswith(".onnx") else data)


def _without_manifest(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("model.onnx", b"x")


def _cut(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-200])


def _damaged(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[200:260] = bytes(60)
    archive.write_bytes(data)


def _no_archive(archive: Path) -> None:
    archive.write_bytes(b"no archive")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_adds("../outside.txt"), "leaves the folder"),
        (_adds("/etc/outside.txt"), "leaves the folder"),
        (_adds("..\\outside.txt"), "leaves the folder"),
        (_adds("link.txt", mode=stat.S_IFLNK | 0o777), "is no file"),
        (_adds("weights.pkl"), "of a kind that no package holds"),
        (_adds("stray.onnx"), "gives no digest"),
        (_other_bytes, "its SHA-256 is"),
        (_without_manifest, r"engine\.toml is not in it"),
        (_cut, "is damaged, or no archive"),
        (_damaged, "is damaged, or no archive"),
        (_no_archive, "is damaged, or no archive"),
    ],
)
def test_what_is_not_a_sound_package_is_refused_and_leaves_nothing(
    change: Callable[[Path], None], says: str, archive: Path, tmp_path: Path
) -> None:
    change(archive)
    with pytest.raises(PackageError, match=says):
        import_archive(archive, tmp_path / "engines" / "body")
    assert not [*(tmp_path / "engines").iterdir()]
    assert not (tmp_path / "outside.txt").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_in_it_twice_is_refused(archive: Path, tmp_path: Path) -> None:
    _adds("notes.txt", twice=True)(archive)
    with pytest.raises(PackageError, match=r"notes\.txt: is in it twice"):
        import_archive(archive, tmp_path / "engines" / "body")


def test_what_grows_without_end_is_stopped(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.archives.MOST_BYTES", 1000)
    with pytest.raises(PackageError, match="holds more than"):
        import_archive(archive, tmp_path / "engines" / "body")
    monkeypatch.setattr("engines.archives.MOST_FILES", 2)
    with pytest.raises(PackageError, match="2 are allowed"):
        import_archive(archive, tmp_path / "engines" / "body")


def test_the_command_line_drafts_exports_and_imports(tmp_path: Path) -> None:
    run = CliRunner().invoke
    folder, archive = str(shipped_package("ct-body-composition")), str(tmp_path / "body.zip")
    made = run(app, ["engines", "export", folder, archive])
    assert made.exit_code == 0, made.output
    read = run(app, ["engines", "import", archive, "--to", str(tmp_path / "body")])
    assert read.exit_code == 0, read.output
    assert "ct-body-composition" in read.output
    drafted = tmp_path / "engine.toml"
    assert run(app, ["engines", "new", "cine", "--to", str(drafted)]).exit_code == 0
    assert "[cine]" in drafted.read_text()
    for words, says in (
        (["export", "nobody", str(tmp_path / "other.zip")], "is neither a folder nor one of"),
        (["export", folder, str(tmp_path / "other.tar")], "does not end in .zip"),
        (["import", folder, "--to", str(tmp_path / "other")], "engines new"),
        (["import", archive, "--answers", str(drafted), "--to", str(tmp_path / "o")], "its own"),
    ):
        refused = run(app, ["engines", *words])
        assert refused.exit_code == 2, refused.output
        assert says in " ".join(refused.output.split())
