"""Name files that are no readable image, and the program that makes one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from PIL import TiffImagePlugin

from dfs_ros.system.tracebacks import keep_traceback

_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339
_FLOAT = 3  # of SampleFormat

_HEIC, _AVIF = ("HEIC", "heif-convert"), ("AVIF", "avifdec")
_RAW = ("raw", "darktable-cli or dcraw -T")
_VIDEO = ("video", "ffmpeg")
_BRANDS = {  # of ISO base media files, at byte 8
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"), _HEIC),
    **dict.fromkeys((b"avif", b"avis"), _AVIF),
    **dict.fromkeys((b"isom", b"mp41", b"mp42", b"qt  ", b"avc1", b"M4V "), _VIDEO),
    b"crx ": _RAW,
}
_STARTS = {
    b"GIF8": ("GIF", "convert"),
    b"8BPS": ("Photoshop", "convert"),
    b"v/1\x01": ("OpenEXR", "convert"),
    b"\xff\x0a": ("JPEG XL", "djxl"),
    b"\0\0\0\x0cJXL ": ("JPEG XL", "djxl"),
    b"\0\0\0\x0cjP  ": ("JPEG 2000", "opj_decompress"),
    b"SIMPLE  =": ("FITS", "convert"),
    b"FUJIFILM": _RAW,
    b"%PDF": ("PDF", "pdfimages"),
}
SUFFIXES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), _HEIC),
    ".avif": _AVIF,
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef"), _RAW),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), _VIDEO),
    ".gif": ("GIF", "convert"),
    ".jxl": ("JPEG XL", "djxl"),
    ".jp2": ("JPEG 2000", "opj_decompress"),
    ".exr": ("OpenEXR", "convert"),
    ".psd": ("Photoshop", "convert"),
}
"""Kind and converter of files that are photos or videos, but not readable here, by suffix."""


def kind_of(file: BinaryIO) -> str:
    """Kind of an unreadable image, with the remedy; empty if unknown."""
    file.seek(0)
    head = file.read(16)
    found = _BRANDS.get(head[8:12]) if head[4:8] == b"ftyp" else None
    found = found or next((kind for start, kind in _STARTS.items() if head.startswith(start)), None)
    if found is not None:
        return f"{found[0]}; convert it to JPEG, PNG or TIFF ({found[1]})"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_kind(file, head[:8])
    return ""


def _tiff_kind(file: BinaryIO, header: bytes) -> str:
    try:
        directory: Any = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(directory.next)
        directory.load(file)
        bits, form = directory.get(_BITS_PER_SAMPLE, (1,))[0], directory.get(_SAMPLE_FORMAT, (1,))[0]
    except Exception as error:  # of a damaged file, anything
        keep_traceback(error)
        return ""
    if form != _FLOAT and bits <= 16:
        return ""  # readable, if it were whole
    what = "float" if form == _FLOAT else "integer"
    return f"a TIFF of {bits}-bit {what} samples; save it as 16-bit or 8-bit integers"


def listed(files: Iterable[Path]) -> str:
    """Unreadable photos and videos among files, by kind: "3 HEIC files: convert them (heif-convert)"; else empty."""
    kinds = Counter(SUFFIXES[path.suffix.lower()] for path in files if path.suffix.lower() in SUFFIXES)
    return "; ".join(
        f"{count} {kind} file{'s: convert them' if count > 1 else ': convert it'} ({program})"
        for (kind, program), count in kinds.items()
    )
