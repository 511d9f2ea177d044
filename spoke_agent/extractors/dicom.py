"""DICOM: what a study, a series and a picture are. Who the patient is stays where the file is.

Left out on purpose: the patient's name, number, birth date, address, sex and age; the accession number; names of physicians,
operators and institutions; comments. Dates of the study and its UIDs are read, since without them nothing is found again.
"""

from __future__ import annotations

import re
from typing import Any, Final

from protocol.fields import Fields, fitted
from spoke_agent.extractors.interface import Unreadable, Wanted
from spoke_agent.extractors.source import Source

_READ: Final = {
    "Modality": "modality",
    "StudyDate": "study_date",
    "StudyDescription": "study",
    "SeriesDescription": "series",
    "SeriesNumber": "series_number",
    "InstanceNumber": "instance_number",
    "ProtocolName": "protocol",
    "SequenceName": "sequence",
    "BodyPartExamined": "body_part",
    "ImageType": "image_type",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "model",
    "MagneticFieldStrength": "field_strength",
    "RepetitionTime": "repetition_time",
    "EchoTime": "echo_time",
    "FlipAngle": "flip_angle",
    "KVP": "kvp",
    "ContrastBolusAgent": "contrast",
    "SliceThickness": "slice_thickness",
    "PixelSpacing": "pixel_spacing",
    "Rows": "rows",
    "Columns": "columns",
    "NumberOfFrames": "frames",
    "BitsStored": "bits",
    "PhotometricInterpretation": "colours",
    "StudyInstanceUID": "study_uid",
    "SeriesInstanceUID": "series_uid",
    "SOPInstanceUID": "uid",
    "SOPClassUID": "class_uid",
    "PatientIdentityRemoved": "identity_removed",
}
"""Keywords of PS3.6 that are read, and what they are called here."""
_DATE: Final = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)\Z")


class Dicom:
    """Reads the elements named above and skips the rest, pixels first of all."""

    name = "dicom"
    version = 1
    what = "a DICOM file"
    endings: tuple[str, ...] = (".dcm", ".dicom", ".ima", "")
    needs: tuple[str, ...] = ("pydicom",)

    def fits(self, key: str, head: bytes) -> bool:
        """Say whether it has the mark of PS3.10; old files have none and begin with an element of group 8 or 2."""
        return head[128:132] == b"DICM" or (key.lower().endswith(self.endings[:3]) and head[:2] in {b"\x08\0", b"\x02\0"})

    def extract(self, source: Source, wanted: Wanted) -> Fields:  # noqa: ARG002 - no words are read: they name people
        """Read a data set. Raises Unreadable where it is none."""
        import pydicom  # noqa: PLC0415 - imported where a file is read

        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        data = pydicom.dcmread(
            source.file(), stop_before_pixels=True, specific_tags=list(_READ), force=source.head[128:132] != b"DICM"
        )
        values: dict[str, object] = {}
        for keyword, name in _READ.items():
            value = _value(data.get(keyword))
            if value not in {None, ""}:
                values[f"dicom.{name}"] = value
        if not values:
            raise Unreadable("It is named like a DICOM file and has none of the elements that every one has.")
        syntax = getattr(data, "file_meta", {}).get("TransferSyntaxUID")
        values["dicom.transfer_syntax"] = syntax.name if syntax else None
        return fitted("dicom", values)


def _value(value: Any) -> object:
    """Return an element's value as it is searched: DICOM's own decimals and lists as numbers and text."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return round(float(value), 6)
    if not isinstance(value, str | bytes) and hasattr(value, "__iter__"):
        return ", ".join(str(_value(one)) for one in list(value)[:20])
    text = value if isinstance(value, str) else str(value)
    date = _DATE.match(text)
    return "-".join(date.groups()) if date else text.strip()
