from __future__ import annotations

import io
import re
from pathlib import Path

import pydicom
import pypdf
import pytest
from pydicom.dataset import Dataset

from node.interfaces import ResultContext, ResultError
from node.results._capture import told
from node.results._pdf import pdf_of
from node.results.encapsulated_pdf import EncapsulatedPdfWriter
from tests.node.results.awkward import AWKWARD, awkward_series
from tests.node.results.building import analysis, context, refusal
from tests.node.results.pictured import SOURCES, again, nothing_on_ct, on_ct, save, with_images
from tests.node.results.test_validators import SOURCES_OWN_FAULTS
from tests.node.results.validators import dcentvfy, dciodvfy

WRITER = EncapsulatedPdfWriter()


def document_of(path: Path) -> pypdf.PdfReader:
    """Open the document with another's reader, which is strict."""
    dataset = pydicom.dcmread(path)
    data = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
    return pypdf.PdfReader(io.BytesIO(data), strict=True)


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def said(made: ResultContext, folder: Path) -> str:
    (path,) = save(WRITER, made, folder)
    return words("".join(page.extract_text() for page in document_of(path).pages))


def test_the_document_has_the_sentences_of_the_report_and_pictures(tmp_path: Path) -> None:
    made = on_ct(tmp_path)
    text = said(made, tmp_path / "out")
    for sentence in told(made):
        assert words(sentence[:40]) in text
    (path,) = (tmp_path / "out").iterdir()
    pages = document_of(path).pages
    assert [len(page.images) for page in pages] == [0, 1, 1, 1, 1]
    for page in pages:
        assert "AI - PRELIMINARY - UNVERIFIED" in words(page.extract_text())


def test_nothing_found_and_not_analysed_are_told(tmp_path: Path) -> None:
    nothing = nothing_on_ct(tmp_path)
    assert "Analysed, nothing found." in said(nothing, tmp_path / "nothing")
    refused = said(again(nothing, refusal()), tmp_path / "refused")
    assert "NOT ANALYSED: Slices are missing." in refused
    assert "3 slices missing between z = -40.0 mm and -30.0 mm" in refused


def test_obj_09_it_is_a_document_that_nobody_verified(tmp_path: Path) -> None:
    (path,) = save(WRITER, on_ct(tmp_path), tmp_path / "out")
    dataset = pydicom.dcmread(path)
    assert dataset.Modality == "DOC"
    assert dataset.VerificationFlag == "UNVERIFIED"
    assert dataset.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert len(dataset.SourceInstanceSequence) == 6


@pytest.mark.parametrize("name", SOURCES)
def test_documents_conform_to_their_iod_and_are_the_same_bytes_again(
    name: str, tmp_path: Path
) -> None:
    made = SOURCES[name](tmp_path)
    (first,) = save(WRITER, made, tmp_path / "first")
    (second,) = save(WRITER, made, tmp_path / "second")
    assert not dciodvfy(first)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", AWKWARD)
def test_obj_03_awkward_headers_make_valid_documents(name: str, tmp_path: Path) -> None:
    headers = awkward_series(tmp_path / "source", name)
    made = with_images(context(headers, analysis(headers)), tmp_path / "source")
    accepted = SOURCES_OWN_FAULTS.get(name, ())
    (path,) = save(WRITER, made, tmp_path / "out")
    assert not [line for line in dciodvfy(path) if not any(word in line for word in accepted)]
    assert document_of(path).pages


def test_a_document_agrees_with_its_sources(tmp_path: Path) -> None:
    paths = save(WRITER, on_ct(tmp_path), tmp_path / "out")
    assert not dcentvfy([*sorted((tmp_path / "source").iterdir()), *paths])


def test_obj_22_a_document_that_differs_is_found_out(tmp_path: Path) -> None:
    made = on_ct(tmp_path)
    (path,) = save(WRITER, made, tmp_path / "out")
    dataset: Dataset = pydicom.dcmread(path)
    dataset.EncapsulatedDocument = dataset.EncapsulatedDocument.replace(
        b"UNVERIFIED", b"CONFIRMED!"
    )
    dataset.save_as(path)
    with pytest.raises(ResultError, match="not that of the outcome"):
        WRITER.check(path, made)


def test_many_words_take_several_pages_and_odd_characters_do_no_harm() -> None:
    lines = [f"Line {number} (with \\ brackets) ä 肺" for number in range(130)]
    pages = pypdf.PdfReader(io.BytesIO(pdf_of("Heading", lines, [])), strict=True).pages
    text = [words(page.extract_text()) for page in pages]
    assert len(pages) == 3
    assert all(page.startswith("Heading") for page in text)
    assert "Line 0 (with \\ brackets) ä ?" in text[0]
    assert "Line 129" in text[-1]
