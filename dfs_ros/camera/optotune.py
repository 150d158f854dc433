"""Liquid lens of Optotune on a serial line: Lens Driver 4 and 4i, or ICC-1C in its simple mode.

Lens Driver 4: `Start` is answered by `Ready`. A command is followed by its CRC-16 (polynomial 0xA001, reflected, low
byte first), an answer by its CRC and a line end. `MwCA` starts the control of the focal power, which follows the lens's
temperature, and is answered by its limits; `PwDA` sets it, in steps of 1/200 dioptre, without an answer. Firmware of
type A counts from -5 dioptres. ICC-1C: lines of text, `START` and `SETFP=1.25`, answered by `OK` or by what is wrong.

The focal power is that of the liquid lens, not the inverse distance in focus: as raw position it wants a calibration.
"""

from __future__ import annotations

import struct
from typing import Any

_BAUD, _GREETING_S, _ANSWER_S = 115200, 1.0, 1.0
_STEPS = 200.0  # a dioptre
_OFFSETS_DIOPTERS = {b"A": 5.0}  # by type of the firmware
_TEMPERATURES_C = (20, 40)  # over which the focal power has to be reachable
_LONGEST, _MOST_LINES = 64, 4
_REFUSALS = {"OL": "is below the lens's limit", "OU": "is over the lens's limit", "NO": "is refused: no lens?"}


class OptotuneLens:
    """Lens of the sweeper at a serial port; its raw positions are the focal power in dioptres.

    Raises ImportError without pyserial, OSError for a port that does not open, TimeoutError for a device that does not
    answer or whose answer comes damaged, ValueError for refusals and positions beyond its limits.
    """

    unit = "focal_power"

    def __init__(self, port: str) -> None:
        try:
            import serial
        except ImportError as error:
            raise ImportError(f"Optotune lenses need pyserial ({error}): pip install pyserial") from error
        self._port = port
        try:
            self._line: Any = serial.Serial(port, _BAUD, timeout=_ANSWER_S, write_timeout=_ANSWER_S)
        except (OSError, serial.SerialException) as error:
            raise OSError(f"{port}: does not open ({error}); is this user in the group dialout?") from error
        self._is_icc, self._offset = False, 0.0
        try:
            self._low, self._high = self._begin()
        except BaseException:
            self._line.close()
            raise

    def move(self, raw: float) -> None:
        if not self._low <= raw <= self._high:
            raise ValueError(
                f"{self._port}: takes a focal power of {self._low:g} to {self._high:g} dioptres, received {raw:g}"
            )
        if self._is_icc:
            self._set(f"SETFP={raw:.3f}")
            return
        self._send(b"PwDA" + struct.pack(">h", round((raw + self._offset) * _STEPS)) + b"\0\0")
        self._ask(b"TCA", ">xxxh")  # the temperature: a driver that answers lives, and an error would come first

    def close(self) -> None:
        self._line.close()

    def _begin(self) -> tuple[float, float]:
        """Greet the driver and start its control of the focal power; return its limits in dioptres."""
        self._line.reset_input_buffer()
        self._line.write(b"Start")
        self._line.timeout = _GREETING_S
        greeting = self._line.readline()
        self._line.timeout = _ANSWER_S
        if not greeting.endswith(b"Ready\r\n"):
            return self._begin_icc()
        (kind,) = self._ask(b"H", ">xs")
        self._offset = _OFFSETS_DIOPTERS.get(kind, 0.0)
        cold, warm = (16 * each for each in _TEMPERATURES_C)
        self._ask(b"PwTA" + struct.pack(">hh", warm, cold), ">xxBhh")
        _, most, least = self._ask(b"MwCA", ">xxxBhh")
        if least >= most:
            raise ValueError(f"{self._port}: the driver offers no focal power: is a lens with its EEPROM connected?")
        return least / _STEPS - self._offset, most / _STEPS - self._offset

    def _begin_icc(self) -> tuple[float, float]:
        self._line.write(b"\r\nSTART\r\n")
        lines = [self._line.readline().strip()]
        while lines[-1] not in (b"", b"OK") and len(lines) < _MOST_LINES:
            lines.append(self._line.readline().strip())
        if lines[-1] != b"OK":
            raise TimeoutError(f"{self._port}: no lens driver of Optotune answers: is it this port, and powered?")
        self._line.reset_input_buffer()
        self._is_icc = True
        limits = [self._told(command) for command in ("GETFPMIN", "GETFPMAX")]
        try:
            return float(limits[0]), float(limits[1])
        except ValueError:
            raise ValueError(
                f"{self._port}: the driver offers no focal power ({limits[0]}): is a lens there?"
            ) from None

    def _set(self, command: str) -> None:
        answer = self._told(command)
        if answer != "OK":
            raise ValueError(f"{self._port}: {command} {_REFUSALS.get(answer, f'is answered by {answer!r}')}")

    def _told(self, command: str) -> str:
        """Answer of an ICC to a line of text."""
        self._line.write(f"{command}\r\n".encode("ascii"))
        answer = self._line.readline()
        if not answer.endswith(b"\n"):
            raise TimeoutError(f"{self._port}: no answer to {command}")
        return str(answer.decode("ascii", "replace").strip())

    def _send(self, command: bytes) -> None:
        self._line.write(command + struct.pack("<H", crc16(command)))

    def _ask(self, command: bytes, answer: str) -> tuple[Any, ...]:
        """Send a command; return the fields of its answer, which begins with the same letter. Others are skipped."""
        self._send(command)
        size, got = struct.calcsize(answer) + 4, b""
        while len(got) < _LONGEST:
            byte = self._line.read(1)
            got += byte
            data, checksum, ended = got[:-4], got[-4:-2], got.endswith(b"\r\n")
            if not ended or checksum != struct.pack("<H", crc16(data)):  # a line end may lie within the numbers
                if byte and not (ended and len(got) >= size):
                    continue
                state = "a damaged answer" if got else "no answer"
                raise TimeoutError(f"{self._port}: {state} to {command[:4].decode('ascii', 'replace')}")
            if data[:1] == b"E":
                raise ValueError(f"{self._port}: the driver refuses a command: {data.decode('ascii', 'replace')}")
            if data[:1] == command[:1] and len(got) == size:
                return struct.unpack(answer, data)
            got = b""
        raise TimeoutError(f"{self._port}: the line is full of other data: is it a lens driver of Optotune?")


def crc16(data: bytes) -> int:
    """CRC-16 with the reflected polynomial 0xA001 from 0.

    >>> hex(crc16(b"123456789"))
    '0xbb3d'
    """
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
