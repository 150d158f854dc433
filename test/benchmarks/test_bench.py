"""`dfs bench`: it computes what it says it measures, and says what it measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.live import LiveCase, SweepingCamera, cases_here, follow
from benchmarks.live import measure as live
from benchmarks.live import measure_here as live_here
from benchmarks.speed import (
    SpeedCase,
    SpeedResult,
    best_of,
    measure,
    measure_here,
    skimage_volume,
    synthetic_stack,
)
from benchmarks.volumes_cli import fitted_line
from dfs_ros.cli.main import main
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cost_volume_from_config


def test_the_scikit_image_baseline_is_the_released_volume() -> None:
    pytest.importorskip("skimage", reason="scikit-image is only needed for comparison")
    stack, depths_m = synthetic_stack(SpeedCase("skimage", height=40, width=51, images=3, hypotheses=4))
    cost = CostConfig(method="released", max_coc_px=10.0)
    expected = cost_volume_from_config(stack, depths_m, cost, backend="reference")
    volume = skimage_volume(stack, depths_m, threads=2)
    assert np.linalg.norm(volume - expected) < 1e-5 * np.linalg.norm(expected)


def test_measures_in_a_process_of_its_own() -> None:
    case = SpeedCase("residual", height=300, width=300, images=2, hypotheses=12, repeats=2)
    result = measure(case)
    assert 0 < result.best_s <= result.first_s
    volume_mb = 300 * 300 * 12 * 4 / 1e6
    assert volume_mb < result.peak_extra_mb < 50 * volume_mb
    assert result.checksum == pytest.approx(measure_here(case).checksum, rel=1e-6)
    with pytest.raises(RuntimeError, match=r"measuring SpeedCase\(method='nonsense'.*expected one of released"):
        measure(SpeedCase("nonsense"))


def test_best_of() -> None:
    rounds = [SpeedResult(2.0, 1.0, 10.0, 0.5), SpeedResult(1.5, 1.2, 30.0, 0.5)]
    assert best_of(rounds) == SpeedResult(1.5, 1.0, 30.0, 0.5)


def test_fitted_line() -> None:
    line = fitted_line([1, 2, 4], [3.0, 5.0, 9.0])
    assert line["slope_s"] == pytest.approx(2) and line["offset_s"] == pytest.approx(1)
    assert line["r_squared"] == pytest.approx(1)
    assert fitted_line([1, 2, 3, 4], [1.0, 4.0, 1.0, 4.0])["r_squared"] < 0.5


def test_bench_writes_table_numbers_and_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.speed.measure", measure_here)  # starting a process for each case takes longest
    output = tmp_path / "bench"
    sizes = ["--size", "32", "--images", "2", "--hypotheses", "3", "--repeats", "1", "--rounds", "1"]
    live = ["--live-seconds", "0.1", "--rates", "0,30", "--runners", "none"]
    assert main(["bench", *sizes, *live, "--output", str(output), "--growth-hypotheses", "2"]) == 0
    said = capsys.readouterr().out
    report = json.loads((output / "bench.json").read_text())
    assert {"released", "paper", "residual", "residual, luma"} <= set(report["side_by_side"])
    for name, result in report["side_by_side"].items():
        assert result["best_s"] > 0
        assert name in said
    assert set(report["growth"]) == {"megapixels", "images", "hypotheses"}
    varied = {
        "megapixels": [n * n / 1e6 for n in (16, 24, 32, 40, 48, 56, 64)],
        "images": [2, 3, 4, 5, 6, 8, 10],
        "hypotheses": [8, 16, 32, 48, 64, 96],
    }
    for axis, methods in report["growth"].items():
        for line in methods.values():
            assert line["x"] == varied[axis] and len(line["seconds"]) == len(line["x"]) and min(line["seconds"]) > 0
            assert np.isfinite([line["slope_s"], line["offset_s"], line["r_squared"]]).all()
    assert set(report["judge_s"]) == {"judgement", "per live stack"} and min(report["judge_s"].values()) > 0
    assert set(report["outputs_s"]) == {"points", "packed cloud", "colours"} and min(report["outputs_s"].values()) > 0
    assert (output / "bench.png").read_bytes()[:4] == b"\x89PNG"
    assert "cpu, none" in report["live"]
    for name, record in report["live"].items():
        assert name in said
        assert record["ran_on"]["network"] == "none"
        assert [row["input_hz"] for row in record["rates"]] == [0.0, 30.0]
        assert record["memory_mb"]["cpu_peak"] >= record["memory_mb"]["cpu"] > 50
        for row in record["rates"]:
            assert row["depth_hz"] > 0 and row["offered"] > row["missed"] >= 0
            assert sum(row["shares"].values()) == pytest.approx(1)
            assert 0 < row["latency_s"]["median"] <= row["latency_s"]["most"]


@pytest.mark.parametrize("option", ["--size", "--images", "--hypotheses", "--threads", "--repeats", "--rounds"])
def test_bench_refuses_nonsense(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", option, "-1"]) == 2
    assert f"{option}: expected" in capsys.readouterr().err


def test_bench_checks_the_output_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["bench", "--output", str(tmp_path / "file" / "bench")]) == 2
    assert "cannot be written" in capsys.readouterr().err


# --- following a camera ---------------------------------------------------------------------------------------------


class Result:
    """Depth that took a while, a third of it in one step."""

    def __init__(self, seconds: float) -> None:
        self.report = {"seconds": {"a": seconds / 3, "b": 2 * seconds / 3, "total": seconds}}


def follow_for(seconds: float, rate_hz: float, each_s: list[float]) -> tuple[dict[str, Any], list[int]]:
    """Follow a camera on a clock of our own; what was computed."""
    now, computed = [100.0], []

    def compute(newest: int) -> Any:
        computed.append(newest)
        took = each_s[(len(computed) - 1) % len(each_s)]
        now[0] += took
        return Result(took)

    def sleep(duration: float) -> None:
        now[0] += duration

    return follow(compute, 7, rate_hz, seconds, lambda: now[0], sleep), computed


def test_a_slow_estimator_misses_images() -> None:
    record, computed = follow_for(1.0, 10.0, [0.25])
    assert computed == [7, 9, 12, 14]  # those that came last at 0, 0.25, 0.5 and 0.75 s
    assert (record["offered"], record["missed"]) == (8, 4)
    assert record["depth_hz"] == pytest.approx(4) and record["jitter_s"] == pytest.approx(0, abs=1e-9)
    assert record["latency_s"]["first"] == pytest.approx(0.25) and record["latency_s"]["most"] == pytest.approx(0.3)
    assert record["steps_s"] == pytest.approx({"a": 0.25 / 3, "b": 0.5 / 3})
    assert record["shares"] == pytest.approx({"a": 1 / 3, "b": 2 / 3})


def test_a_fast_estimator_waits_for_images() -> None:
    record, computed = follow_for(0.75, 5.0, [0.01])
    assert computed == [7, 8, 9, 10, 11]
    assert (record["offered"], record["missed"]) == (5, 0)
    assert record["latency_s"]["most"] == pytest.approx(0.01)


def test_the_most_a_machine_can_do() -> None:
    record, computed = follow_for(1.0, 0.0, [0.05, 0.15])
    assert computed == list(range(7, 17)) and record["missed"] == 0
    assert record["depth_hz"] == pytest.approx(10) and record["jitter_s"] == pytest.approx(0.05)
    assert record["latency_s"] == pytest.approx({"first": 0.05, "last": 0.15, "median": 0.1, "most": 0.15})


def test_the_camera_of_the_bench_shows_a_plane_and_no_image_twice() -> None:
    case = LiveCase(runner="none", height=64, width=96, hypotheses=24, threads=1, rates_hz=(0.0,), seconds=0.05)
    camera = SweepingCamera(case)
    (first, reference), (second, _) = camera.stack(9), camera.stack(10)
    assert reference == 4 and len(first) == 5
    changed = [i for i in range(5) if (first.images[i] != second.images[i]).any()]
    assert changed == [0]
    record = live_here(case)
    assert record["depth_m"] == pytest.approx(0.9, rel=0.03)
    assert live_here(dataclasses.replace(case, runner="torch"))["ran_on"]["network"] == "light, torch on cpu"
    assert record["memory_mb"]["gpu_device"] is None or record["memory_mb"]["gpu_device"] > 0


def test_what_cannot_be_measured_says_why() -> None:
    record = live(LiveCase(device="nowhere", height=32, width=32))
    assert "device: expected one of auto, cpu, cuda" in record["absent"]


def test_cases_are_those_that_can_run_here() -> None:
    names = [case.name for case in cases_here(LiveCase(), ["none", "torch", "tensorrt_rtx"])]
    assert names[:2] == ["cpu, none", "cpu, torch"] and "cpu, tensorrt_rtx" not in names


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rates", "fast"], "--rates: expected numbers of 0 or more"),
        (["--rates", "-1"], "--rates: expected"),
        (["--runners", "torch,openvino"], "--runners: expected some of none, torch"),
        (["--live-seconds", "0"], "--live-seconds: expected more than 0"),
    ],
)
def test_bench_refuses_wrong_options_of_the_camera(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *options]) == 2
    assert said in capsys.readouterr().err
