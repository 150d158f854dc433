"""Optotune's lens drivers at a serial line: a pseudo-terminal whose other end speaks their protocols."""

from __future__ import annotations

import os
import select
import struct
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("serial", reason="pyserial is not installed: pip install pyserial")

from dfs_ros.camera.optotune import OptotuneLens, crc16
from dfs_ros.camera.sweeper import FocusSweeper
from dfs_ros.config import Config
from dfs_ros.transport.local import LocalBus, LocalTransport

_SIZES = {b"H": 1, b"P": 8, b"M": 4, b"T": 3}  # of commands


class Driver:
    """Other end of the line: a Lens Driver 4i with limits of -2 and 3 dioptres, or an ICC-1C.

    `damage`: the next so many answers have a wrong checksum. `set_diopters`: focal powers that were set.
    """

    def __init__(self, kind: str, firmware: bytes = b"A") -> None:
        self._end, other = os.openpty()
        tty.setraw(other)
        self.port = os.ttyname(other)
        self._other, self._kind, self._firmware = other, kind, firmware
        self._offset = 5.0 if firmware == b"A" else 0.0
        self.damage, self.set_diopters, self.controlled = 0, list[float](), False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        os.close(self._other)
        os.close(self._end)

    def _serve(self) -> None:
        got = b""
        while not self._closed.is_set():
            if not select.select([self._end], [], [], 0.01)[0]:
                continue
            got += os.read(self._end, 64)
            if self._kind == "silent":
                got = b""
            elif self._kind == "icc":
                *lines, got = got.split(b"\r\n")
                for line in lines:
                    os.write(self._end, self._answer_to_line(line.decode()) + b"\r\n")
            elif got == b"Start":
                os.write(self._end, b"Ready\r\n")
                got = b""
            else:
                got = self._answered(got)

    def _answered(self, got: bytes) -> bytes:
        """Answer the commands in what came; return the rest."""
        while got and len(got) >= (size := _SIZES[got[:1]]) + 2:
            command, checksum, got = got[:size], got[size : size + 2], got[size + 2 :]
            assert struct.pack("<H", crc16(command)) == checksum
            self._answer_to(command)
        return got

    def _steps(self, diopters: float) -> bytes:
        return struct.pack(">h", round((diopters + self._offset) * 200))

    def _answer_to(self, command: bytes) -> None:
        limits = self._steps(3.0) + self._steps(-2.0)
        if command == b"H":
            answer = b"H" + self._firmware
        elif command == b"PwTA" + struct.pack(">hh", 40 * 16, 20 * 16):
            answer = b"PT\0" + limits
        elif command == b"MwCA":
            self.controlled, answer = True, b"MCA\0" + limits
        elif command[:4] == b"PwDA" and self.controlled:
            self.set_diopters.append(struct.unpack(">h", command[4:6])[0] / 200 - self._offset)
            return
        elif command == b"TCA":
            answer = b"TCA" + struct.pack(">h", 0x0D0A)  # a line end within the number
        else:
            answer = b"E2"
        checksum = crc16(answer)
        if self.damage:
            self.damage, checksum = self.damage - 1, checksum ^ 1
        os.write(self._end, answer + struct.pack("<H", checksum) + b"\r\n")

    def _answer_to_line(self, line: str) -> bytes:
        if line == "START":
            return b"OK"
        if line.startswith("SETFP="):
            power = float(line.removeprefix("SETFP="))
            self.set_diopters += [power] if power <= 2 else []
            return b"OK" if power <= 2 else b"OU"
        return {"GETFPMIN": b"-2.0", "GETFPMAX": b"3.0"}.get(line, b"ERROR")


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Driver]]:
    for name in ("_GREETING_S", "_ANSWER_S"):  # waited for only where no answer comes
        monkeypatch.setattr(f"dfs_ros.camera.optotune.{name}", 240.0)
    opened: list[Driver] = []
    yield opened
    for driver in opened:
        driver.close()


def plugged(drivers: list[Driver], kind: str, firmware: bytes = b"A") -> Driver:
    drivers.append(Driver(kind, firmware))
    return drivers[-1]


@pytest.mark.parametrize("firmware", [b"A", b"B"])
def test_focal_power_is_set_in_steps_of_a_200th_dioptre(drivers: list[Driver], firmware: bytes) -> None:
    driver = plugged(drivers, "4i", firmware)
    lens = OptotuneLens(driver.port)
    for power in (-2.0, 0.123, 3.0):
        lens.move(power)
    assert driver.set_diopters == pytest.approx([-2.0, 0.125, 3.0])
    with pytest.raises(ValueError, match=r"takes a focal power of -2 to 3 dioptres, received 3\.5"):
        lens.move(3.5)
    lens.close()


def test_damaged_and_refused_answers(drivers: list[Driver]) -> None:
    driver = plugged(drivers, "4i")
    lens = OptotuneLens(driver.port)
    driver.damage = 1
    with pytest.raises(TimeoutError, match="a damaged answer to TCA"):
        lens.move(1.0)
    lens.move(1.5)  # what came damaged is out of the way
    assert driver.set_diopters == [1.0, 1.5]
    driver.controlled = False
    with pytest.raises(ValueError, match="the driver refuses a command: E2"):
        lens.move(1.0)
    lens.close()


def test_an_icc_in_its_simple_mode(drivers: list[Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfs_ros.camera.optotune._GREETING_S", 0.05)
    driver = plugged(drivers, "icc")
    lens = OptotuneLens(driver.port)
    lens.move(-1.25)
    assert driver.set_diopters == [-1.25]
    with pytest.raises(ValueError, match=r"SETFP=2\.500 is over the lens's limit"):
        lens.move(2.5)
    lens.close()


def test_ports_without_a_driver(drivers: list[Driver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_GREETING_S", "_ANSWER_S"):
        monkeypatch.setattr(f"dfs_ros.camera.optotune.{name}", 0.02)
    with pytest.raises(TimeoutError, match="no lens driver of Optotune answers"):
        OptotuneLens(plugged(drivers, "silent").port)
    with pytest.raises(OSError, match=r"does not open .*group dialout"):
        OptotuneLens(str(tmp_path / "ttyACM0"))


def test_the_sweeper_moves_it(drivers: list[Driver]) -> None:
    driver = plugged(drivers, "4i")
    sweeper = {
        "driver": "optotune",
        "port": driver.port,
        "raw_positions": "-1,0,2",
        "settle_s": 0.001,
        "dwell_s": 0.001,
    }
    config = Config.from_dict({"sweeper": sweeper})
    node = LocalTransport("dfs_sweeper", LocalBus(), config=config)
    sweeping = FocusSweeper(node, config)
    assert "focal_power by optotune" in sweeping.description
    sweeping.activate()
    while len(driver.set_diopters) < 5:
        node.spin_once(0.005)
    sweeping.close()
    assert driver.set_diopters[:5] == [-1, 0, 2, 0, -1]
