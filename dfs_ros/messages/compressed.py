"""sensor_msgs/CompressedImage of image_transport's `compressed` (JPEG, PNG) and `compressedDepth` <-> numpy."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.messages.definitions import Message, header, message
from dfs_ros.messages.images import IMAGE_ENCODINGS, depth_message, eight_bits, image_from_message, image_message

COMPRESSED_FORMATS = ("jpeg", "png")
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_DEPTH_HEADER = struct.Struct("<iff")  # of compressedDepth: format (0 = inverse depth), A, B
_MOST_B = 2**22  # decoders compute in float32, which holds code - B up to there to half a code
_REDUCED = {  # colour and grey
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
}


def compressed_message(
    image: NDArray[np.uint8], stamp_ns: int, frame_id: str, file_format: str = "jpeg", quality: int = 95
) -> Message:
    """Make a sensor_msgs/CompressedImage of RGB (H, W, 3) or mono (H, W) uint8.

    `quality` is that of JPEG, 1 to 100.
    """
    if file_format not in COMPRESSED_FORMATS:
        raise ValueError(f"file_format: expected one of {', '.join(COMPRESSED_FORMATS)}, received {file_format!r}")
    colour = image.ndim == 3
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if file_format == "jpeg" else []
    _, data = cv2.imencode(f".{file_format}", image[..., ::-1] if colour else image, options)
    encoding, stored = ("rgb8", "bgr8") if colour else ("mono8", "mono8")
    return message(
        "sensor_msgs/msg/CompressedImage",
        header=header(stamp_ns, frame_id),
        format=f"{encoding}; {file_format} compressed {stored}",
        data=data.reshape(-1),
    )


def compressed_depth_message(
    depth_m: NDArray[np.float32], stamp_ns: int, frame_id: str, encoding: str = "32FC1"
) -> Message:
    """Make a sensor_msgs/CompressedImage of depth (H, W), NaN = unknown, as image_transport's `compressedDepth` does.

    A header with A and B, then a PNG of 16 bit. 32FC1: codes ``A / depth + B`` from 1 to 65535, 0 unknown. A and B
    spread these over the depths of this image, uniformly in dioptres: steps are 1/65534 of its range, or a four
    millionth of the least inverse depth. (The plugin's own A and B end at 10 m and overflow below 0.15 m.) 16UC1: the
    millimetres, without loss.
    """
    raw = depth_message(depth_m, stamp_ns, frame_id, encoding)  # raises for anything that is no depth
    if encoding == "32FC1":
        known = np.isfinite(depth_m) & (depth_m > 0)
        inverse = 1.0 / depth_m[known].astype(np.float64)
        low, high = (inverse.min(), inverse.max()) if inverse.size else (1.0, 1.0)
        a = np.float32(min(65534.0 / max(high - low, 1e-30), _MOST_B / low))
        b = np.float32(1.0 - low * float(a))
        codes = np.zeros(depth_m.shape, np.uint16)
        codes[known] = np.clip(np.rint(inverse * float(a) + float(b)), 1, 65535)
    else:
        a = b = np.float32(0.0)
        codes = np.frombuffer(np.asarray(raw.data, np.uint8).tobytes(), "<u2").reshape(depth_m.shape)
    _, data = cv2.imencode(".png", codes, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    head = np.frombuffer(_DEPTH_HEADER.pack(0, a, b), np.uint8)
    return message(
        "sensor_msgs/msg/CompressedImage",
        header=header(stamp_ns, frame_id),
        format=f"{encoding}; compressedDepth png",
        data=np.concatenate([head, data.reshape(-1)]),
    )


def compressed_size(msg: Message) -> tuple[int, int]:
    """(height, width) of a sensor_msgs/CompressedImage, without decoding it.

    Raises ValueError for data that is no whole JPEG or PNG.
    """
    height, width, _ = _header(msg)
    return height, width


def _header(msg: Message) -> tuple[int, int, bool]:
    """(height, width, True for grey)."""
    from PIL import Image, UnidentifiedImageError

    data = _checked(msg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images: callers have their own limit
            with Image.open(io.BytesIO(data)) as image:
                return image.height, image.width, image.mode == "L"
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"compressed image: {msg.format!r}: its header cannot be read: {error}") from error


def image_from_compressed(
    msg: Message, least_size: tuple[int, int] | None = None, sample_bits: int = 16
) -> NDArray[np.uint8]:
    """Decode a sensor_msgs/CompressedImage to RGB (H, W, 3) or mono (H, W), uint8.

    `least_size` (height, width): a JPEG may be decoded smaller, down to this, as means over 2, 4 or 8 pixels each way
    that divide its size, in a third of the time. Other images keep their size.
    16-bit samples are scaled to 8 bits as by :func:`~dfs_ros.messages.images.image_from_message`, an alpha channel is
    dropped, Bayer patterns are interpolated. Orientation tags are ignored. Raises ValueError for anything else, and for
    truncated data.
    """
    data = _checked(msg)
    flags = cv2.IMREAD_UNCHANGED
    pattern = str(msg.format).partition(";")[0].strip()
    if least_size is not None and data.startswith(_JPEG) and not pattern.startswith("bayer_"):
        height, width, grey = _header(msg)
        for factor, (colour_flag, grey_flag) in _REDUCED.items():
            divides = height % factor == 0 and width % factor == 0
            if divides and height // factor >= least_size[0] and width // factor >= least_size[1]:
                flags = (grey_flag if grey else colour_flag) | cv2.IMREAD_IGNORE_ORIENTATION
    pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"compressed image: {msg.format!r}: {len(data)} bytes cannot be decoded")
    if pixels.ndim == 2 and pattern.startswith("bayer_") and pattern in IMAGE_ENCODINGS:
        return image_from_message(image_message(pixels, 0, "", pattern), sample_bits)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    if pixels.dtype == np.uint16:
        return eight_bits(pixels, sample_bits, f"compressed image: {msg.format!r}")
    return np.asarray(pixels, np.uint8)


def _checked(msg: Message) -> bytes:
    """Return the data of a whole JPEG or PNG; decoders would fill missing parts with grey."""
    data = np.asarray(msg.data, np.uint8).tobytes()
    if "compressedDepth" in msg.format:
        raise ValueError(f"compressed image: expected a photo, received a depth image ({msg.format!r})")
    end_of = {_JPEG: _jpeg_end, _PNG: _png_end}
    find_end = next((find for start, find in end_of.items() if data.startswith(start)), None)
    if find_end is None:
        raise ValueError(
            f"compressed image: expected {' or '.join(COMPRESSED_FORMATS)}, received format {msg.format!r} with data "
            f"that begins {data[:8].hex(' ') or 'nowhere'}"
        )
    end = find_end(data)
    if end < 0:
        raise ValueError(f"compressed image: {msg.format!r}: its {len(data)} bytes are not the whole image")
    return data[:end]


def _jpeg_end(data: bytes) -> int:
    """Length of a JPEG up to its end mark, behind which drivers pad; -1 without one."""
    position = 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        kind = data[position + 1]
        if kind == 0xFF:  # fill byte
            position += 1
            continue
        # Segments, which may hold a thumbnail with an end mark of its own, up to the compressed data.
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if kind == 0xDA:
            break
    end = data.find(b"\xff\xd9", position)
    return -1 if end < 0 else end + 2


def _png_end(data: bytes) -> int:
    """Length of a PNG up to its last chunk; -1 without one."""
    position = len(_PNG)
    while position + 12 <= len(data):
        kind = data[position + 4 : position + 8]
        position += 12 + int.from_bytes(data[position : position + 4], "big")
        if kind == b"IEND":
            return position if position <= len(data) else -1
    return -1
