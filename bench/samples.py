"""One file of each kind that extractors read, made with the kind's own library. Tests use them too."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import h5py
import netCDF4
import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pydicom
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage


def image(folder: Path, name: str = "photo.jpg", size: tuple[int, int] = (400, 300)) -> Path:
    """Make a photograph with EXIF: camera, lens, time, exposure, place."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x010E] = "Canon", "Canon EOS R5", "A harbour at dawn"
    exif.get_ifd(0x8769).update(
        {
            0x9003: "2024:03:09 06:31:12",
            0x8827: 200,
            0x829A: IFDRational(1, 250),
            0x829D: IFDRational(28, 10),
            0xA434: "RF 50mm",
        }
    )
    exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 36.0), 3: "E", 4: (151.0, 12.0, 0.0), 6: IFDRational(12, 1)})
    path = folder / name
    Image.effect_noise(size, 30).convert("RGB").save(path, exif=exif)
    return path


def dicom(folder: Path, name: str = "slice.dcm", pixels: int = 64) -> Path:
    """Make a slice of a patient with a name, in a study with a name."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["instance"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    data.PatientName, data.PatientID, data.PatientBirthDate = "Doe^Jane", "MRN-4711", "19700102"
    data.PatientSex, data.AccessionNumber, data.ReferringPhysicianName = "F", "ACC-99", "House^Gregory"
    data.InstitutionName, data.PatientComments = "Princeton General", "Neighbour of Mr Smith"
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.StudyDate, data.StudyDescription = "MR", "20240131", "Brain"
    data.SeriesDescription, data.SeriesNumber, data.InstanceNumber = "T1 MPRAGE", 3, 17
    data.StudyInstanceUID = data.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["study"])
    data.MagneticFieldStrength, data.SliceThickness, data.PixelSpacing = "3.0", "1.2", ["0.9", "0.9"]
    data.Rows = data.Columns = pixels
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelData = b"\0" * (2 * pixels * pixels)
    path = folder / name
    data.save_as(path, enforce_file_format=True)
    return path


def nifti(folder: Path, name: str = "bold.nii.gz", shape: tuple[int, ...] = (16, 16, 10, 8)) -> Path:
    """Make a series of volumes, compressed where the name says so."""
    make: Any = nibabel.Nifti1Image
    made = make(np.zeros(shape, np.int16), np.diag([2.0, 2.0, 2.5, 1.0]))
    header = made.header
    header.set_xyzt_units("mm", "sec")
    header.set_zooms((2.0, 2.0, 2.5, 1.5))
    header["descrip"] = b"motion corrected"
    body = made.to_bytes()
    path = folder / name
    path.write_bytes(gzip.compress(body, 1) if name.endswith(".gz") else body)
    return path


def netcdf(folder: Path, name: str = "climate.nc", form: Any = "NETCDF4") -> Path:
    """Make a grid of temperatures, in any of netCDF's formats."""
    path = folder / name
    with netCDF4.Dataset(path, "w", format=form) as file:
        file.title, file.institution, file.history_length = "Monthly means", "Weather service", np.int32(3)
        for dimension, size in (("time", None), ("lat", 12), ("lon", 24)):
            file.createDimension(dimension, size)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(5.0)
        grid = file.createVariable("t2m", "f4", ("time", "lat", "lon"))
        grid.long_name = "air temperature at two metres"
        grid[:] = 280.0
    return path


def hdf5(folder: Path, name: str = "run.h5") -> Path:
    """Make groups, data and attributes."""
    path = folder / name
    with h5py.File(path, "w") as file:
        file.attrs["experiment"], file.attrs["temperature"] = "beam 7", 4.2
        file.create_group("raw/detector").create_dataset("counts", data=np.arange(1000))
        file["processed"] = np.zeros((10, 10))
    return path


def parquet(folder: Path, name: str = "table.parquet", rows: int = 1000) -> Path:
    """Make a table of two columns in row groups of 100."""
    path = folder / name
    table = pa.table({"city": ["Oslo"] * rows, "people": list(range(rows))})
    pa.parquet.write_table(table, path, row_group_size=100)
    return path


def pdf(folder: Path, name: str = "paper.pdf", words: str = "Silver nanoparticles in water", pages: int = 3) -> Path:
    """Write a document by hand: words on each page, a title and an author."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(pages))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number in range(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({words} {number}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append("<< /Title (On silver) /Author (A. Researcher) /CreationDate (D:20240309063112Z) >>")
    return write_pdf(folder / name, objects)


def write_pdf(path: Path, objects: list[str]) -> Path:
    """Write objects as a PDF, the first its root, the last its information."""
    body, places = "%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{one}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    path.write_bytes((body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}" + trailer).encode("latin-1"))
    return path


def text(folder: Path, name: str = "notes.txt") -> Path:
    """Write some words that are not all ASCII."""
    path = folder / name
    path.write_text("Größe  und Gewicht\nof all samples\n" * 40, encoding="utf-8")
    return path


ALL: Final[dict[str, Callable[[Path], Path]]] = {
    "image": image,
    "dicom": dicom,
    "nifti": nifti,
    "netcdf": netcdf,
    "hdf5": hdf5,
    "parquet": parquet,
    "pdf": pdf,
    "text": text,
}
