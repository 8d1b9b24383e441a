"""`wetread engines ...`: list, devices, verify, check, new, import, export, schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from engines.archives import SUFFIX as ARCHIVE_SUFFIX
from engines.archives import export_package, import_archive
from engines.base import ladder_of, rung_availability
from engines.drafts import draft
from engines.errors import PackageError
from engines.importing import import_model
from engines.manifest import RungTable, read_rung
from engines.package import EnginePackage, load_package
from engines.probe import probe
from engines.schema import package_schema
from engines.verify import verify_package
from node.catalogue import read_packages
from node.cli_support import DEFAULT_CONFIG, ConfigOption, clear_errors, out
from node.sandbox import Sandbox
from node.settings import Settings, load_settings
from node.shipped_engines import Result, run_shipped
from node.stores import open_stores, prepare
from node.workshop import engine_folders, make_catalogue

DEFAULT_ANSWERS: Final = Path("config/engines")
DEFAULT_MODELS: Final = Path("../shared/models")

engines_app = typer.Typer(help="Engine packages.", no_args_is_help=True)


@engines_app.command("list")
def engines_list(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the engine packages that a start would find."""
    with clear_errors():
        table = Table("engine", "version", "task", "runs on", "digest", "intended use")
        settings = load_settings(config)
        ladder = [read_rung(text) for text in settings.engines.ladder]
        for item in read_packages(engine_folders(settings)):
            package = item.package
            table.add_row(
                package.name,
                package.version,
                package.task,
                "\n".join(_rungs(package, ladder)),
                package.digest[:12],
                package.intended_use,
            )
        out.print(table)


def _rungs(package: EnginePackage, ladder: Sequence[RungTable]) -> Iterator[str]:
    """Yield the ways to run an engine, best first, and why one cannot be used here."""
    for rung in ladder_of(package, ladder):
        found = rung_availability(rung)
        yield str(rung) if found.available else f"{rung}: not here: {found.reason}"


@engines_app.command("devices")
def engines_devices() -> None:
    """Say which devices, driver and libraries this machine has to run engines on."""
    found = probe()
    for gpu in found.devices.gpus:
        out.print(f"{gpu.index}: {gpu.name}, {gpu.capability}, {gpu.memory_mib} MiB", markup=False)
    out.print(found.devices.reason or f"driver: CUDA {found.devices.driver_cuda}", markup=False)
    for name, text in found.versions.items():
        out.print(f"{name} {text}", markup=False)


@engines_app.command("verify")
def engines_verify(
    config: ConfigOption = DEFAULT_CONFIG,
    everything: Annotated[
        bool, typer.Option("--all", help="And of the engines that ship without their models.")
    ] = False,
    answers: Annotated[
        Path, typer.Option(help="With --all: the folder of the answers for those.")
    ] = DEFAULT_ANSWERS,
    models: Annotated[
        Path, typer.Option(help="With --all: the folder with their models, a folder for each.")
    ] = DEFAULT_MODELS,
) -> None:
    """Run the golden case of every engine package on this machine."""
    with clear_errors():
        settings = load_settings(config)
        counted = Counter(_verify_installed(settings))
        if everything:
            counted.update(_verify_shipped(settings, answers, models))
            told = ", ".join(f"{counted[result]} {result.value.lower()}" for result in Result)
            out.print(told, markup=False)
        if counted[Result.FAILED]:
            raise typer.Exit(1)


def _verify_installed(settings: Settings) -> Iterator[Result]:
    """Run the golden cases of the node's own engines; what came of them stands in its database."""
    prepare(settings)
    stores = open_stores(settings)
    catalogue = make_catalogue(settings, stores)
    try:
        catalogue.load()
        catalogue.verify()
    finally:
        catalogue.close()
    for record in stores.engines.list():
        out.print(
            f"{record.name} {record.version}: {record.state.value} {record.reason}".rstrip(),
            markup=False,
            soft_wrap=True,
        )
        good = catalogue.active(record.name) is not None
        yield Result.PASSED if good else Result.FAILED


def _verify_shipped(settings: Settings, answers: Path, models: Path) -> Iterator[Result]:
    """Run the golden cases of engines that ship without their models; none of them is installed."""
    sandbox = Sandbox(memory_mib=settings.worker.memory_mib)
    try:
        for case in run_shipped(answers, models, sandbox=sandbox, threads=settings.worker.threads):
            told = case.reason or f"({case.seconds:.1f} s)"
            out.print(f"{case.engine}: {case.result} {told}", markup=False, soft_wrap=True)
            yield case.result
    finally:
        sandbox.close()


@engines_app.command("check")
def engines_check(
    folders: Annotated[list[Path], typer.Argument(help="Folders of engine packages.")],
    run: Annotated[bool, typer.Option("--run", help="Run the golden cases too.")] = False,
) -> None:
    """Read packages as a start would: every key, every file, every digest. Needs no node."""
    failed = 0
    with clear_errors():
        for folder in folders:
            package = load_package(folder)
            line = f"{package.name} {package.version}: sound, package SHA-256 {package.digest}"
            if run:
                verdict = verify_package(package)
                failed += not verdict.passed
                line += f"; golden case {verdict.reason or 'passed'} ({verdict.seconds:.1f} s)"
            out.print(line, markup=False)
    if failed:
        raise typer.Exit(1)


@engines_app.command("import")
def engines_import(
    model: Annotated[
        Path,
        typer.Argument(
            help="An ONNX file, or a folder: of ONNX files, a MONAI bundle, an nnU-Net export."
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder of the package, which must not exist yet.")],
    answers: Annotated[
        Path | None,
        typer.Option(
            help="engine.toml without [files]; see config/engines and `engines new`. None for an"
            " archive, which has its own."
        ),
    ] = None,
) -> None:
    """Make an engine package of a model and the answers that no model file holds."""
    with clear_errors():
        if model.suffix == ARCHIVE_SUFFIX:
            if answers is not None:
                raise PackageError(f"{model.name}: an archive of a package has its own answers")
            package, case = import_archive(model, to), ""
        elif answers is None:
            raise PackageError("--answers: needed for a model; `wetread engines new` drafts them")
        else:
            package, case = import_model(model, answers, to), " Its golden case is a phantom."
        out.print(
            f"{package.name} {package.version}: {to}, package SHA-256 {package.digest}.{case}"
            " To use it, put its folder under [engines] folders and name it in a rule.",
            markup=False,
            soft_wrap=True,
        )


@engines_app.command("new")
def engines_new(
    task: Annotated[str, typer.Argument(help="Kind of task, such as segmentation.")],
    to: Annotated[Path, typer.Option(help="File to write, which must not exist yet.")],
) -> None:
    """Draft the answers for an import: what must be said, and behind # what may be."""
    with clear_errors():
        text = draft(task)
        with to.open("x", encoding="utf-8") as file:
            file.write(text)
        out.print(f"{to}: fill it in, then `wetread engines import`", markup=False, soft_wrap=True)


@engines_app.command("export")
def engines_export(
    engine: Annotated[str, typer.Argument(help="Name of an engine, or folder of a package.")],
    archive: Annotated[Path, typer.Argument(help="The .zip to write; must not exist yet.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write an engine package into one file, which `engines import` reads elsewhere."""
    with clear_errors():
        if archive.suffix != ARCHIVE_SUFFIX:
            raise PackageError(f"{archive}: does not end in {ARCHIVE_SUFFIX}")
        package = export_package(_folder_of(engine, config), archive)
        out.print(
            f"{package.name} {package.version}: {archive}, package SHA-256 {package.digest}",
            markup=False,
            soft_wrap=True,
        )


def _folder_of(engine: str, config: Path) -> Path:
    """Return the folder of a package that is named, or that is where the name says."""
    if Path(engine).is_dir():
        return Path(engine)
    found = {
        item.package.name: item.folder
        for item in read_packages(engine_folders(load_settings(config)))
    }
    if engine not in found:
        raise PackageError(f"{engine}: is neither a folder nor one of {sorted(found)}")
    return found[engine]


@engines_app.command("schema")
def engines_schema() -> None:
    """Print the JSON Schema of engine.toml, for editors and for those who write one."""
    typer.echo(json.dumps(package_schema(), indent=2))
