"""Real files of each kind, through the pool: what is found, how little is read, and what damage does."""

from __future__ import annotations

import gzip
import os
import random
import struct
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pypdf import PdfReader, PdfWriter

from bench import samples
from protocol.fields import Fields, pack, unpack
from protocol.messages import IndexLevel
from spoke_agent.extraction import Extraction

MIB = 1024 * 1024
Look = Callable[..., Awaitable[Any]]


async def test_a_photograph_gives_size_camera_date_exposure_and_place(look: Look, tmp_path: Path) -> None:
    found = await look(samples.image(tmp_path))
    assert found.kind == "image"
    assert found.problem == ""
    assert found.values == {
        "image.width": 400,
        "image.height": 300,
        "image.mode": "RGB",
        "image.format": "JPEG",
        "image.camera": "Canon EOS R5",
        "image.lens": "RF 50mm",
        "image.date": "2024-03-09T06:31:12",
        "image.exposure_s": 0.004,
        "image.aperture": 2.8,
        "image.iso": 200,
        "image.latitude": -33.86,
        "image.longitude": 151.2,
        "image.altitude_m": 12.0,
    }
    assert "harbour" in found.text


@pytest.mark.parametrize("form", ["png", "tif", "gif", "webp", "bmp", "jp2", "ppm"])
async def test_other_formats_of_images_are_read(look: Look, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"x.{form}"
    Image.new("RGB", (31, 17)).save(path)
    found = await look(path, IndexLevel.METADATA)
    assert (found.kind, found.values["image.width"], found.values["image.height"]) == ("image", 31, 17)


async def test_a_slice_gives_study_and_series_and_nothing_of_who_the_patient_is(look: Look, tmp_path: Path) -> None:
    found = await look(samples.dicom(tmp_path))
    assert found.kind == "dicom"
    assert found.problem == ""
    expected = {
        "dicom.modality": "MR",
        "dicom.study_date": "2024-01-31",
        "dicom.study": "Brain",
        "dicom.series": "T1 MPRAGE",
        "dicom.series_number": 3,
        "dicom.field_strength": 3.0,
        "dicom.slice_thickness": 1.2,
        "dicom.pixel_spacing": "0.9, 0.9",
        "dicom.rows": 64,
        "dicom.transfer_syntax": "Explicit VR Little Endian",
    }
    assert expected.items() <= found.values.items()
    said = pack(found).lower()
    for secret in (b"doe", b"jane", b"4711", b"1970", b"acc-99", b"house", b"princeton", b"smith"):
        assert secret not in said


async def test_a_slice_without_an_ending_is_found_by_its_mark(look: Look, pool: Extraction, tmp_path: Path) -> None:
    path = samples.dicom(tmp_path)
    for name in ("IM0001", "series/1.2.840.113619.2.55.3.1"):
        assert pool.wants(name, path.stat().st_size)
        assert (await look(path, name=name)).kind == "dicom"


@pytest.mark.parametrize("name", ["bold.nii", "bold.nii.gz"])
async def test_volumes_give_shape_voxels_and_type(look: Look, tmp_path: Path, name: str) -> None:
    found = await look(samples.nifti(tmp_path, name))
    assert found.kind == "nifti"
    assert found.problem == ""
    assert found.values["nifti.shape"] == "16, 16, 10, 8"
    assert found.values["nifti.voxel_size"] == "2.0, 2.0, 2.5"
    assert found.values["nifti.datatype"] == "int16"
    assert (found.values["nifti.dim4"], found.values["nifti.time_step"]) == (8, 1.5)
    assert found.text == "motion corrected"


@pytest.mark.parametrize(
    "form", ["NETCDF4", "NETCDF4_CLASSIC", "NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]
)
async def test_every_format_of_netcdf_gives_dimensions_variables_and_attributes(look: Look, tmp_path: Path, form: str) -> None:
    found = await look(samples.netcdf(tmp_path, form=form))
    assert found.kind == "netcdf"
    assert found.problem == ""
    assert {found.values[f"netcdf.dimension.{name}"] for name in ("time", "lat", "lon")} == {5, 12, 24}
    assert set(found.values["netcdf.dimensions"].split(", ")) == {"time", "lat", "lon"}
    assert set(found.values["netcdf.variables"].split(", ")) == {"time", "t2m"}
    assert found.values["netcdf.title"] == "Monthly means"
    assert found.values["netcdf.history_length"] == 3
    assert "air temperature" in found.text


async def test_hdf5_gives_groups_variables_and_attributes(look: Look, tmp_path: Path) -> None:
    found = await look(samples.hdf5(tmp_path))
    assert found.kind == "hdf5"
    assert found.problem == ""
    assert found.values["hdf5.groups"] == "raw, raw/detector"
    assert found.values["hdf5.variables"] == "processed, raw/detector/counts"
    assert (found.values["hdf5.experiment"], found.values["hdf5.temperature"]) == ("beam 7", 4.2)


async def test_parquet_gives_rows_groups_and_columns(look: Look, tmp_path: Path) -> None:
    found = await look(samples.parquet(tmp_path))
    assert found.kind == "parquet"
    assert found.problem == ""
    assert (found.values["parquet.rows"], found.values["parquet.row_groups"], found.values["parquet.columns"]) == (1000, 10, 2)
    assert found.values["parquet.names"] == "city, people"
    assert found.values["parquet.schema"] == "city string, people int64"
    assert found.values["parquet.creator"].startswith("parquet-cpp-arrow")


async def test_a_document_gives_pages_title_author_and_at_level_content_its_words(look: Look, tmp_path: Path) -> None:
    path = samples.pdf(tmp_path)
    found = await look(path)
    assert found.kind == "pdf"
    assert found.problem == ""
    assert found.values["pdf.pages"] == 3
    assert (found.values["pdf.title"], found.values["pdf.author"]) == ("On silver", "A. Researcher")
    assert found.values["pdf.created"] == "2024-03-09T06:31:12"
    assert "Silver nanoparticles in water 2" in found.text
    assert (await look(path, IndexLevel.METADATA)).text == ""


async def test_a_document_with_a_password_says_so(look: Look, tmp_path: Path) -> None:
    writer = PdfWriter(clone_from=PdfReader(samples.pdf(tmp_path)))
    writer.encrypt("secret", algorithm="AES-256")
    writer.write(tmp_path / "locked.pdf")
    found = await look(tmp_path / "locked.pdf")
    assert found.values == {"pdf.encrypted": True}
    assert found.problem == "It needs a password."
    writer = PdfWriter(clone_from=PdfReader(tmp_path / "paper.pdf"))
    writer.encrypt("", "owner", algorithm="AES-256")
    writer.write(tmp_path / "printing.pdf")
    found = await look(tmp_path / "printing.pdf")
    assert found.problem == ""
    assert "Silver" in found.text


async def test_text_gives_its_encoding_and_at_level_content_its_words(look: Look, tmp_path: Path) -> None:
    path = samples.text(tmp_path)
    found = await look(path)
    assert (found.kind, found.values) == ("text", {"text.encoding": "utf-8"})
    assert found.text.startswith("Größe und Gewicht of all samples Größe")
    assert (await look(path, IndexLevel.METADATA)).text == ""
    for encoding, said in (("utf-16", "utf-16"), ("cp1252", "cp1252"), ("utf-8-sig", "utf-8")):
        path.write_text("Größe", encoding=encoding)
        found = await look(path)
        assert (found.values["text.encoding"], found.text) == (said, "Größe")


async def test_text_that_is_cut_within_a_character_is_still_utf_8(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("x" * (64 * 1024 - 1) + "ö" * 1000, encoding="utf-8")
    assert (await look(path)).values["text.encoding"] == "utf-8"


async def test_binary_that_is_named_like_text_is_refused(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "core.log"
    path.write_bytes(os.urandom(5000))
    found = await look(path)
    assert found == Fields(problem="It is named like text and does not begin like that.")
    assert await look(path, name="LICENSE") is None


@pytest.mark.parametrize("kind", samples.ALL)
async def test_words_are_kept_at_level_content_alone_and_nothing_below_metadata(look: Look, tmp_path: Path, kind: str) -> None:
    path = samples.ALL[kind](tmp_path)
    assert (await look(path, IndexLevel.METADATA)).text == ""
    assert (await look(path, IndexLevel.METADATA)).values
    assert await look(path, IndexLevel.NAMES) is None
    assert await look(path, IndexLevel.NONE) is None


@pytest.mark.parametrize("kind", samples.ALL)
async def test_a_wrong_ending_does_not_hide_what_a_file_is(look: Look, tmp_path: Path, kind: str) -> None:
    path = samples.ALL[kind](tmp_path)
    found = await look(path, name="wrong.jpg" if kind != "image" else "wrong.pdf")
    if kind == "text" or path.suffix == ".gz":
        assert found.problem.startswith("It is named like an image")  # nothing but the name tells what these are
    else:
        assert (found.kind, found.problem) == (kind, "")


# ---------------------------------------------------------------------------------------------- how little is read


@pytest.mark.parametrize("name", ["big.nii", "big.dcm"])
async def test_of_a_file_of_200_mib_only_the_header_is_read(pool: Extraction, opened: Any, tmp_path: Path, name: str) -> None:
    path = samples.nifti(tmp_path, name, (16, 16, 10, 8)) if name.endswith("nii") else samples.dicom(tmp_path, name, 1024)
    os.truncate(path, 200 * MIB)
    file = opened(path)
    found = await pool.extract(name, file.size, IndexLevel.METADATA, file.read)
    assert found.values
    assert found.problem == ""
    assert file.bytes <= 256 * 1024


async def test_of_a_table_of_200_mib_only_the_footer_is_read(pool: Extraction, opened: Any, tmp_path: Path) -> None:
    whole = samples.parquet(tmp_path).read_bytes()
    path = tmp_path / "big.parquet"
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    with path.open("wb") as file:
        file.write(b"PAR1")
        file.truncate(200 * MIB - footer)
        file.seek(0, os.SEEK_END)
        file.write(whole[-footer:])
    counted = opened(path)
    found = await pool.extract("big.parquet", counted.size, IndexLevel.METADATA, counted.read)
    assert found.values["parquet.rows"] == 1000
    assert counted.bytes <= 256 * 1024


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_64BIT_OFFSET"])
async def test_of_a_grid_of_200_mib_little_is_read(pool: Extraction, opened: Any, tmp_path: Path, form: str) -> None:
    path = tmp_path / "big.nc"
    with netCDF4.Dataset(path, "w", format=form) as made:
        made.createDimension("x", 50 * MIB)
        made.createVariable("a", "f4", ("x",))[:] = np.zeros(50 * MIB, np.float32)
        made.createVariable("b", "f4", ("x",))
    file = opened(path)
    assert file.size >= 200 * MIB
    found = await pool.extract("big.nc", file.size, IndexLevel.METADATA, file.read)
    assert found.values["netcdf.dimension.x"] == 50 * MIB
    assert file.bytes <= 2 * MIB


@pytest.mark.parametrize("kind", ["image", "netcdf", "hdf5", "parquet", "pdf"])
async def test_a_library_that_wants_more_of_a_file_than_it_may_have_stops(
    small: Extraction, look: Look, opened: Any, tmp_path: Path, kind: str
) -> None:
    path = samples.ALL[kind](tmp_path)
    whole = path.read_bytes()
    match kind:
        case "image":
            path = tmp_path / "late.tif"
            Image.effect_noise((400, 400), 50).save(path, compression="tiff_lzw")
        case "pdf":
            path.write_bytes(whole.replace(b"xref\n0", b"%" * MIB + b"\nxref\n0", 1))
        case "parquet":
            path.write_bytes(whole[:100] + bytes(MIB) + whole[100:])
        case "netcdf":
            with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
                file.long = "x" * MIB
                file.createDimension("x", 3)
        case "hdf5":
            with h5py.File(path, "w") as file:
                for number in range(500):
                    file[f"set{number}"] = np.arange(100)
    assert (await look(path)).values
    file = opened(path)
    found = await small.extract(path.name, file.size, IndexLevel.CONTENT, file.read)
    assert found.problem
    assert file.bytes <= 64 * 1024
    path = samples.text(tmp_path)
    file = opened(path)
    assert (await small.extract(path.name, file.size, IndexLevel.CONTENT, file.read)).kind == "text"


# ---------------------------------------------------------------------------------------------- damage


def broken(whole: bytes, chance: random.Random) -> dict[str, bytes]:
    """Make what crashed copies, bad disks and pranks leave of a file."""
    flipped = bytearray(whole)
    for _ in range(40):
        flipped[chance.randrange(min(len(flipped), 4096))] = chance.randrange(256)
    return {
        "truncated in its header": whole[:40],
        "truncated in the middle": whole[: len(whole) // 2],
        "without its last byte": whole[:-1],
        "zeros": b"\0" * len(whole),
        "noise": chance.randbytes(len(whole)),
        "noise after its header": whole[:200] + chance.randbytes(len(whole)),
        "with bytes changed": bytes(flipped),
        "twice": whole + whole,
        "one byte": whole[:1],
    }


@pytest.mark.parametrize("kind", samples.ALL)
async def test_damage_costs_only_the_file_and_is_said_in_a_sentence(look: Look, tmp_path: Path, kind: str) -> None:
    path = samples.ALL[kind](tmp_path)
    whole = path.read_bytes()
    chance = random.Random(kind)  # noqa: S311 - the same damage each time
    for how, body in broken(whole, chance).items():
        path.write_bytes(body)
        found = await look(path)
        assert found is not None, how
        assert unpack(pack(found)) == found
        assert found.values or found.problem, how
        assert found.problem == "" or (found.problem[0].isupper() and found.problem.endswith(".")), how
    path.write_bytes(b"")
    assert await look(path) is None
    path.write_bytes(whole)
    found = await look(path)
    assert (found.kind, found.problem) == (kind, "")


@pytest.mark.fuzz
async def test_whatever_the_bytes_the_answer_is_fields_or_none(look: Look, tmp_path: Path) -> None:
    rounds = int(os.environ.get("WIO_FUZZ", "0")) // 1000 or 12
    chance = random.Random(5)  # noqa: S311 - the same files each time
    seeds = {kind: make(tmp_path) for kind, make in samples.ALL.items()}
    wholes = {kind: path.read_bytes() for kind, path in seeds.items()}
    for _ in range(rounds):
        for kind, path in seeds.items():
            body = bytearray(wholes[kind])
            for _ in range(chance.choice((1, 5, 50))):
                at = chance.randrange(len(body))
                if chance.random() < 0.5:
                    at = chance.choice((at % 1024, len(body) - 1 - at % min(1024, len(body))))
                body[at : at + chance.choice((1, 1, 4))] = chance.randbytes(chance.choice((0, 1, 4)))
                if not body:
                    break
            path.write_bytes(bytes(body))
            found = await look(path)
            assert found is None or unpack(pack(found)) == found


async def test_an_unfinished_volume_is_told_with_what_its_header_says(look: Look, tmp_path: Path) -> None:
    path = samples.nifti(tmp_path, "part.nii")
    os.truncate(path, 2000)
    found = await look(path)
    assert found.values["nifti.shape"] == "16, 16, 10, 8"
    assert found.problem == "It is shorter than its header says."


# ---------------------------------------------------------------------------------------------- bombs


async def test_a_picture_of_a_thousand_million_pixels_is_looked_at_and_not_unpacked(look: Look, tmp_path: Path) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(MIB))) + chunk(b"IEND", b"")
    )
    found = await look(path)
    assert (found.values["image.width"], found.problem) == (60000, "")


async def test_text_in_a_picture_that_unpacks_to_a_gibibyte_does_no_harm(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", "x" * 100 * MIB, zip=True)
    Image.new("L", (4, 4)).save(path, pnginfo=about)
    assert path.stat().st_size < MIB
    found = await look(path)
    assert found is not None


async def test_of_a_gzip_bomb_only_the_header_is_unpacked(look: Look, tmp_path: Path) -> None:
    path = samples.nifti(tmp_path, "bomb.nii")
    packed = tmp_path / "bomb.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()[:400] + bytes(300 * MIB), 9))
    found = await look(packed)
    assert (found.values["nifti.shape"], found.problem) == ("16, 16, 10, 8", "")


async def test_a_document_with_streams_within_streams_that_unpack_to_gibibytes_stays_within_its_budget(
    look: Look, tmp_path: Path
) -> None:
    stream = bytes(400 * MIB)
    for _ in range(2):
        stream = zlib.compress(stream, 9)
    text = stream.decode("latin-1")
    path = samples.write_pdf(
        tmp_path / "bomb.pdf",
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << >> >>",
            f"<< /Length {len(stream)} /Filter [/FlateDecode /FlateDecode] >>\nstream\n{text}\nendstream",
            "<< /Title (Bomb) >>",
        ],
    )
    found = await look(path)
    assert found.values.get("pdf.title") == "Bomb" or found.problem
    assert (await look(samples.text(tmp_path))).kind == "text"


async def test_pages_that_lead_around_in_a_circle_end(look: Look, tmp_path: Path) -> None:
    path = samples.write_pdf(
        tmp_path / "circle.pdf",
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 900000000 >>",
            "<< /Title (Circle) >>",
        ],
    )
    assert await look(path) is not None


def test_files_that_nobody_can_read_are_not_opened(pool: Extraction) -> None:
    for name in ("movie.mkv", "a.zip", "model.bin", "photo.jpg.part", "notes.txt~", "dir.d/x.o"):
        assert not pool.wants(name, 1000)
    for name in ("A/PHOTO.JPG", "x.nii.gz", "Makefile", "data/x.parquet"):
        assert pool.wants(name, 1000)
        assert not pool.wants(name, 0)
    assert not pool.wants("x.tar.gz", 1000)
