"""Pictures: what their headers and EXIF say. No pixel is decoded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from protocol.fields import Fields, fitted
from spoke_agent.extractors.interface import Wanted
from spoke_agent.extractors.source import Source

_FORMATS: Final = ("JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP", "JPEG2000", "AVIF", "PPM", "ICO")
"""As Pillow calls them. Its other readers are older, seldom needed, and one more way in for a hostile file."""
_STARTS: Final = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF87a", b"GIF89a",
    b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
)  # fmt: skip
_SHORT_STARTS: Final = (b"BM", b"\0\0\1\0", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")
"""Other files begin like that as well."""
_EXIF_IFD: Final = 0x8769
_GPS_IFD: Final = 0x8825
# Numbers of tags: CIPA DC-008 (Exif 2.32), tables 4 to 15.
_MAKE, _MODEL, _DESCRIPTION, _DATE, _SOFTWARE, _ORIENTATION = 0x010F, 0x0110, 0x010E, 0x0132, 0x0131, 0x0112
_EXPOSURE, _APERTURE, _ISO, _TAKEN, _FOCAL, _LENS = 0x829A, 0x829D, 0x8827, 0x9003, 0x920A, 0xA434
_LATITUDE, _LONGITUDE, _ALTITUDE = 2, 4, 6
_EXIF_DATE: Final = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)")


class Image:
    """Size, mode and format; camera, lens, date, exposure and place where EXIF has them."""

    name = "image"
    version = 1
    what = "an image"
    endings: tuple[str, ...] = (
        ".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".gif", ".webp", ".bmp", ".jp2", ".j2k", ".jpx", ".avif", ".pgm",
        ".ppm", ".pbm", ".ico",
    )  # fmt: skip
    needs: tuple[str, ...] = ("PIL.Image",)

    def fits(self, key: str, head: bytes) -> bool:
        """Say whether it begins like an image. The short marks count only with a name that says so."""
        if head.startswith(_STARTS):
            return True
        if head[:4] == b"RIFF":
            return head[8:12] == b"WEBP"
        if head[4:8] == b"ftyp":
            return head[8:12] in {b"avif", b"avis"}
        return key.lower().endswith(self.endings) and head.startswith(_SHORT_STARTS)

    def extract(self, source: Source, wanted: Wanted) -> Fields:
        """Read header and EXIF."""
        from PIL import Image as Pillow  # noqa: PLC0415 - imported where a file is read

        Pillow.MAX_IMAGE_PIXELS = None  # large pictures are no danger to who decodes none
        with Pillow.open(source.file(), formats=_FORMATS) as image:
            width, height = image.size
            exif = Pillow.Exif() if image.format == "PNG" else image.getexif()
            if image.format == "PNG" and "exif" in image.info:
                exif.load(image.info["exif"])  # its own getexif unpacks all pixels, to find what may come after them
            values: dict[str, object] = {
                "image.width": width,
                "image.height": height,
                "image.mode": image.mode,
                "image.format": image.format,
                **_exif(exif, exif.get_ifd(_EXIF_IFD), exif.get_ifd(_GPS_IFD)),
            }
            words = [exif.get(_DESCRIPTION), *(image.info.get(name) for name in ("Title", "Description", "Comment", "comment"))]
        text = "\n".join(_text(word) for word in words if word) if wanted is Wanted.CONTENT else ""
        return fitted("image", values, text=text)


def _exif(main: Mapping[int, Any], taken: Mapping[int, Any], place: Mapping[int, Any]) -> dict[str, object]:
    """Return what EXIF says, leaving out what is not as the standard wants it."""
    make, model = _text(main.get(_MAKE)), _text(main.get(_MODEL))
    date = _EXIF_DATE.match(_text(taken.get(_TAKEN) or main.get(_DATE)))
    values = {
        # Many makers begin the model with their name.
        "image.camera": model if model.startswith(make) else f"{make} {model}".strip(),
        "image.lens": _text(taken.get(_LENS)),
        "image.date": "{}-{}-{}T{}".format(*date.groups()) if date else None,
        "image.software": _text(main.get(_SOFTWARE)),
        "image.orientation": _number(main.get(_ORIENTATION), whole=True),
        "image.exposure_s": _number(taken.get(_EXPOSURE)),
        "image.aperture": _number(taken.get(_APERTURE)),
        "image.iso": _number(taken.get(_ISO), whole=True),
        "image.focal_mm": _number(taken.get(_FOCAL)),
        "image.latitude": _degrees(place.get(_LATITUDE), place.get(_LATITUDE - 1), "S"),
        "image.longitude": _degrees(place.get(_LONGITUDE), place.get(_LONGITUDE - 1), "W"),
        "image.altitude_m": _number(place.get(_ALTITUDE)),
    }
    return {name: value for name, value in values.items() if value not in {None, ""}}


def _text(value: object) -> str:
    """Return text without the NULs and spaces that cameras fill it up with."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value).strip("\0 \n") if value is not None else ""


def _number(value: Any, *, whole: bool = False) -> float | int | None:
    """Return a number; ISO may be several, of which the first counts."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        return None if value is None else int(value) if whole else round(float(value), 6)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None


def _degrees(value: Any, side: object, negative: str) -> float | None:
    """Return degrees of degrees, minutes and seconds."""
    try:
        degrees, minutes, seconds = (float(one) for one in value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    found = round(degrees + minutes / 60 + seconds / 3600, 7)
    return -found if _text(side).startswith(negative) else found
