"""Reading the images of a stack: refused when too large before they are decoded, and when anything of them is missing.

Rules, for every image:

- The EXIF orientation is applied: pixels come upright, and intrinsics in `stack.yaml` are those of the upright image.
- 16-bit images keep their upper byte (65535 becomes 255). Below 1/16 of full scale they are refused: 10- or 12-bit
  data that was not scaled up would be left with a few grey levels.
- Transparency is dropped, palettes and CMYK become RGB; of several pictures in one file the first is taken.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dfs_ros.config import ProcessingConfig

# Formats whose decoders report missing data. Not HEIC: Pillow reads it with a plugin only.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm")

_EXIF_ORIENTATION = 0x0112
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")

# What Pillow's decoders raise for files that end early or are damaged.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError),
    *(struct.error, zlib.error),
)


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image before it is decoded; `width_px` and `height_px` before orientation."""

    width_px: int
    height_px: int
    colour: bool
    orientation: int


def read_header(path: Path, max_megapixels: float = ProcessingConfig.max_input_megapixels) -> ImageHeader:
    """Size, colour and EXIF orientation of an image, without decoding it.

    Raises FileNotFoundError where there is no such file, ValueError where it is no image, larger than
    `max_megapixels`, or of an unsupported pixel type.
    """
    with opened_image(path, max_megapixels) as image:
        orientation = int(image.getexif().get(_EXIF_ORIENTATION, 1))
        return ImageHeader(image.width, image.height, image.mode not in _GREY_MODES, orientation)


def read_image(
    path: Path, colour: bool = True, max_megapixels: float = ProcessingConfig.max_input_megapixels
) -> NDArray[np.uint8]:
    """The whole image, upright, uint8: (H, W, 3) RGB with `colour`, else (H, W). See the module for the rules.

    Raises as :func:`read_header`, and ValueError where the file is truncated or damaged.
    """
    with opened_image(path, max_megapixels) as image:
        if image.format == "PNG":
            _check_png_complete(path)
        sixteen_bit = image.mode[0] == "I" or "16" in str(getattr(image, "tile", ""))
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode[0] == "I":
            pixels = _upper_byte(np.asarray(upright), path)
            return np.repeat(pixels[..., None], 3, axis=2) if colour else pixels
        pixels = np.array(upright.convert("RGB" if colour else "L"))
    if sixteen_bit:  # Pillow has taken the upper byte already
        _check_exposed(int(pixels.max()), path)
    return pixels


@contextmanager
def opened_image(path: Path, max_megapixels: float) -> Iterator[Image.Image]:
    """The image file of Pillow, not decoded yet; what goes wrong inside is told as this module's errors."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    try:
        with warnings.catch_warnings(), _image_file(path) as image:
            megapixels = image.width * image.height / 1e6
            if megapixels > max_megapixels:
                raise _Refused(
                    f"{path}: expected at most {max_megapixels:g} megapixels, received {megapixels:.1f} "
                    f"({image.width} x {image.height}); reduce the image or raise processing.max_input_megapixels"
                )
            if image.mode not in _GREY_MODES + _COLOUR_MODES:
                raise _Refused(f"{path}: expected 8- or 16-bit grey or colour, received pixels of type '{image.mode}'")
            yield image
    except _Refused:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: expected at most {max_megapixels:g} megapixels; {error}") from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{path}: expected an image ({', '.join(FORMATS)}), received something else or only the start of one"
        ) from error
    except _DECODER_ERRORS as error:
        raise ValueError(f"{path}: the image is truncated or damaged ({error}); copy or save it again") from error


def _image_file(path: Path) -> Image.Image:
    # Pillow warns of sizes below our own limit and of damaged EXIF blocks: neither matters here.
    warnings.simplefilter("ignore")
    Image.init()  # else formats that Pillow loads late are unknown
    return Image.open(path, formats=FORMATS)


class _Refused(ValueError):
    """Our own message, not to be taken for a decoder's."""


def _check_png_complete(path: Path) -> None:
    # Decoding stops at the last pixel; the check sums and the end mark behind it are looked at here.
    with _image_file(path) as image:
        image.verify()


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
