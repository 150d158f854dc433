"""`dfs bench`: it computes what it says it measures, and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dfs_ros.cli.bench import fitted_line
from dfs_ros.cli.main import main
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.evaluation.speed import (
    SpeedCase,
    SpeedResult,
    best_of,
    measure,
    measure_here,
    skimage_volume,
    synthetic_stack,
)


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
    assert 0 < result.best_s <= result.first_s < 60
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


def test_bench_writes_table_numbers_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bench"
    sizes = ["--size", "24", "--images", "2", "--hypotheses", "3", "--repeats", "1", "--rounds", "1"]
    assert main(["bench", *sizes, "--output", str(output), "--growth-hypotheses", "2"]) == 0
    said = capsys.readouterr().out
    report = json.loads((output / "bench.json").read_text())
    assert {"released", "paper", "residual", "residual, luma"} <= set(report["side_by_side"])
    for name, result in report["side_by_side"].items():
        assert result["best_s"] > 0
        assert name in said
    assert set(report["growth"]) == {"megapixels", "images", "hypotheses"}
    for axis in report["growth"].values():
        for line in axis.values():
            assert len(line["x"]) == len(line["seconds"]) >= 5
            assert np.isfinite([line["slope_s"], line["offset_s"], line["r_squared"]]).all()
    assert report["growth"]["hypotheses"]["residual"]["slope_s"] > 0  # 8 to 96 of them
    assert (output / "bench.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("option", ["--size", "--images", "--hypotheses", "--threads", "--repeats", "--rounds"])
def test_bench_refuses_nonsense(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", option, "-1"]) == 2
    assert f"{option}: expected" in capsys.readouterr().err


def test_bench_checks_the_output_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["bench", "--output", str(tmp_path / "file" / "bench")]) == 2
    assert "cannot be written" in capsys.readouterr().err
