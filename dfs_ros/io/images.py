"""Reader of image files, which refuses too large, truncated and damaged ones; writer of PNG.

Rules, for every image that is read:

- The EXIF orientation is applied: images are upright, and intrinsics in `stack.yaml` are those of the upright image.
- 16-bit images keep their upper byte (65535 becomes 255). Images below 1/16 of full scale are refused: unscaled 10- or
  12-bit data would be left with a few grey levels.
- Transparency is dropped, palettes and CMYK become RGB. TIFF files of several pages and animations are refused; of
  other files with several pictures, as phones write them, the first is read.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dfs_ros.config import LimitsConfig
from dfs_ros.io.unreadable import kind_of

# Formats whose decoders report missing data. Not HEIC: Pillow reads it with a plugin only.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm")

_EXIF_ORIENTATION, _XMP = 0x0112, 700
_LYING = 5  # orientations from which on width and height change places
# Tags of TIFF
_SUBFILE, _BITS_PER_SAMPLE, _DESCRIPTION, _OFFSETS, _BYTE_COUNTS, _PLANAR = 254, 258, 270, 273, 279, 284
_NO_PAGE = 1 | 4  # SubfileType of a reduced picture or a mask
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")

# Exceptions of Pillow's decoders for truncated or damaged files.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError),
    *(struct.error, zlib.error),
)


@dataclass(frozen=True)
class ImageHeader:
    """Header of an image file; `width_px` and `height_px` before orientation."""

    width_px: int
    height_px: int
    colour: bool
    sixteen_bit: bool


class ImageFile:
    """Image file, opened once: the header is read at once, the pixels on request.

    Raises FileNotFoundError for a missing file, ValueError for a file that is no image, an image larger than
    `max_megapixels`, or an unsupported pixel type.
    """

    def __init__(self, path: Path, max_megapixels: float = LimitsConfig.image_megapixels) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such image file")
        self.path = path
        self._max_megapixels = max_megapixels
        with ExitStack() as opened, self._told():
            self._file = opened.enter_context(_FewBytes(path.open("rb", buffering=0)))
            self._image = _parsed(self._file)
            opened.callback(self._image.close)  # which also frees its pixels
            self._check_kind(self._image)
            self._check_single(self._image)
            self._planar = self._has_planes(self._image)
            self._opened = opened.pop_all()
        mode = self._image.mode
        sixteen_bit = self._planar or mode[0] == "I" or "16" in str(getattr(self._image, "tile", ""))
        self.header = ImageHeader(self._image.width, self._image.height, mode not in _GREY_MODES, sixteen_bit)
        self.orientation = 1
        """EXIF orientation, known after the pixels are read: in a PNG it may follow them."""

    def __enter__(self) -> ImageFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be repeated."""
        self._opened.close()

    def exif(self) -> dict[int, Any]:
        """Tags of the EXIF block, by number."""
        with self._told():
            return dict(self._image.getexif().get_ifd(ExifTags.IFD.Exif))

    def xmp(self) -> bytes:
        """XMP packet; empty without one."""
        with self._told():
            found = self._image.info.get("xmp") or self._image.getexif().get(_XMP) or b""
            return found if isinstance(found, bytes) else str(found).encode()

    def pixels(self, colour: bool = True) -> NDArray[np.uint8]:
        """Decode the upright image, uint8: (H, W, 3) RGB with `colour`, else (H, W).

        The rules of the module apply. Raises ValueError for a truncated or damaged file.
        """
        with self._told():
            self._load()
            self.orientation = int(self._image.getexif().get(_EXIF_ORIENTATION, 1))
            image: Any = self._image
            if self._planar:
                image = Image.fromarray(self._upper_byte_of_planes())
                image.getexif()[_EXIF_ORIENTATION] = self.orientation
            upright = ImageOps.exif_transpose(image)
            if upright.mode[0] == "I":
                pixels = _upper_byte(np.asarray(upright), self.path)
                return np.repeat(pixels[..., None], 3, axis=2) if colour else pixels
            pixels = np.array(upright.convert("RGB" if colour else "L"))
        if self.header.sixteen_bit:  # Pillow has taken the upper byte already
            _check_exposed(int(pixels.max()), self.path)
        return pixels

    def upright_size(self) -> tuple[int, int]:
        """(height, width) of the upright image, without decoding it, other than a PNG, whose EXIF may come last."""
        with self._told():
            if self._image.format == "PNG":
                self._load()
            size = self.header.height_px, self.header.width_px
            return size[::-1] if int(self._image.getexif().get(_EXIF_ORIENTATION, 1)) >= _LYING else size

    def sixteen_bit_grey(self) -> NDArray[np.int32] | None:
        """Samples (H, W) of a 16-bit grey image, not turned upright; None for any other."""
        if self._image.mode[0] != "I":
            return None
        with self._told():
            self._load()
            return np.asarray(self._image).astype(np.int32)

    def _load(self) -> None:
        if self._planar:
            return
        self._image.load()
        if self._image.format == "PNG":
            # Decoding stops at the last pixel; this checks the checksums and the end mark behind it.
            self._file.seek(0)
            _parsed(self._file).verify()

    def _check_kind(self, image: Image.Image) -> None:
        megapixels = image.width * image.height / 1e6
        if megapixels > self._max_megapixels:
            raise _Refused(
                f"{self.path}: expected at most {self._max_megapixels:g} megapixels, received {megapixels:.1f} "
                f"({image.width} x {image.height}); reduce the image or raise limits.image_megapixels"
            )
        if image.mode not in _GREY_MODES + _COLOUR_MODES:
            what = f"pixels of type '{image.mode}'{' (float)' if image.mode == 'F' else ''}; save it as 16-bit or 8-bit"
            raise _Refused(f"{self.path}: expected 8- or 16-bit grey or colour, received {what}")

    def _check_single(self, image: Any) -> None:
        """Refuse a file with several images of a stack."""
        count = 1
        if image.format == "TIFF":
            count = _pages(image)
        elif image.format in ("PNG", "WEBP"):
            count = getattr(image, "n_frames", 1)
        if count > 1:
            raise _Refused(
                f"{self.path}: expected one image, received a file of {count} pages; split it into a file for each "
                "(tiffsplit, or convert of ImageMagick)"
            )

    def _has_planes(self, image: Any) -> bool:
        """True for an uncompressed TIFF of 16-bit planes, which Pillow decodes wrongly."""
        if image.format != "TIFF" or image.tag_v2.get(_PLANAR) != 2 or image.mode in _GREY_MODES:
            return False
        found = {tile[0] for tile in image.tile} == {"raw"} and set(image.tag_v2[_BITS_PER_SAMPLE]) == {16}
        if found and _OFFSETS not in image.tag_v2:
            raise _Refused(f"{self.path}: planar 16-bit TIFF in tiles; save it in strips or interleaved")
        return found

    def _upper_byte_of_planes(self) -> NDArray[np.uint8]:
        """Pixels (H, W, 3) of an uncompressed planar 16-bit TIFF."""
        image: Any = self._image
        strips = []
        for offset, size in zip(image.tag_v2[_OFFSETS], image.tag_v2[_BYTE_COUNTS], strict=True):
            self._file.seek(offset)
            strips.append(self._file.read(size))
        samples = np.frombuffer(b"".join(strips), "<u2" if image.tag_v2.prefix == b"II" else ">u2")
        planes = len(image.tag_v2[_BITS_PER_SAMPLE])
        if samples.size != planes * image.width * image.height:
            raise ValueError(f"{samples.size} samples of {planes} planes of {image.width} x {image.height}")
        upper = (samples.reshape(planes, image.height, image.width)[:3] >> 8).astype(np.uint8)
        return np.ascontiguousarray(upper.transpose(1, 2, 0))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn errors of the block into this module's errors."""
        try:
            with warnings.catch_warnings():
                # Pillow warns of sizes below our own limit and of damaged EXIF blocks, which do not matter here.
                warnings.simplefilter("ignore")
                yield
        except _Refused:
            raise
        except Image.DecompressionBombError as error:
            raise ValueError(f"{self.path}: expected at most {self._max_megapixels:g} megapixels; {error}") from error
        except UnidentifiedImageError as error:
            with self.path.open("rb") as file:
                kind = kind_of(file) or "something else or only the start of one"
            raise ValueError(f"{self.path}: expected an image ({', '.join(FORMATS)}), received {kind}") from error
        except _DECODER_ERRORS as error:
            raise ValueError(
                f"{self.path}: the image is truncated or damaged ({error}); copy or save it again"
            ) from error


def png_bytes(image: NDArray[Any]) -> bytes:
    """PNG of an image, (H, W, 3) RGB or (H, W), uint8 or uint16."""
    _, data = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])
    return bytes(data)


def write_png(path: Path, image: NDArray[Any]) -> None:
    """Write a PNG file; unlike cv2.imwrite, it raises OSError with the reason if the disk is full."""
    path.write_bytes(png_bytes(image))


def _pages(image: Any) -> int:
    """Number of pages of a TIFF that are as large as the first, without thumbnails and masks."""
    # ImageJ writes one page with all images behind it.
    behind = re.search(r"^ImageJ=.*^images=(\d+)", str(image.tag_v2.get(_DESCRIPTION, "")), re.MULTILINE | re.DOTALL)
    count, size = 1, image.size
    for page in range(1, image.n_frames):
        image.seek(page)
        count += image.size == size and not image.tag_v2.get(_SUBFILE, 0) & _NO_PAGE
    if image.n_frames > 1:
        image.seek(0)
    return max(count, int(behind[1]) if behind else 1)


class _FewBytes(io.BufferedReader):
    """File that ends after 100,000 reads of one byte: Pillow skips what lies between the segments of a JPEG by them.

    A hole of gigabytes, which a damaged file system leaves, would take hours.
    """

    _left = 100_000

    def read(self, size: int | None = -1, /) -> bytes:
        if size == 1:
            self._left -= 1
            if self._left < 0:
                return b""
        return super().read(size)


def _parsed(file: BinaryIO) -> Image.Image:
    Image.init()  # else formats that Pillow loads late are unknown
    return Image.open(file, formats=FORMATS)


class _Refused(ValueError):
    """Error with our own message, distinct from a decoder's."""


def _upper_byte(values: NDArray[np.integer[Any]], path: Path) -> NDArray[np.uint8]:
    if values.min() < 0 or values.max() > 65535:
        raise _Refused(f"{path}: expected 16-bit values of 0 to 65535, received {values.min()} to {values.max()}")
    pixels = (values >> 8).astype(np.uint8)
    _check_exposed(int(pixels.max()), path)
    return pixels


def _check_exposed(brightest: int, path: Path) -> None:
    if brightest < 16:
        raise _Refused(
            f"{path}: expected 16-bit values that use the range to 65535, received at most {brightest * 256 + 255}; "
            "12-bit data must be multiplied by 16, 10-bit data by 64"
        )
