"""Cores, and how threads wait: the user's choice first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dfs_ros.system import cores


def test_usable_cores_are_those_of_this_process() -> None:
    assert 1 <= cores.usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not tie processes to cores")
def test_a_process_that_is_tied_to_one_core_has_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import dfs_ros.system.cores as c; " + (
        "c.wait_asleep(); print(c.usable_cores(), c.network_threads(), c.network_threads(3))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["1", "1", "3"]


@pytest.mark.parametrize(("policy", "threads"), [(None, 4), ("active", 4), ("passive", 8), ("PASSIVE", 8)], ids=str)
def test_threads_that_spin_get_half_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, policy: str | None, threads: int
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 8)
    if policy is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    assert cores.network_threads() == threads
    assert cores.network_threads(5) == 5


@pytest.mark.parametrize(
    ("variable", "chosen", "otherwise"), [("OMP_WAIT_POLICY", "active", "passive"), ("OPENBLAS_NUM_THREADS", "2", "1")]
)
def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch, variable: str, chosen: str, otherwise: str) -> None:
    monkeypatch.setenv(variable, chosen)
    cores.wait_asleep()
    assert os.environ[variable] == chosen
    monkeypatch.delenv(variable)
    cores.wait_asleep()
    assert os.environ[variable] == otherwise


@pytest.mark.parametrize("module", ["dfs_ros.cli.main", "dfs_ros.cli.native", "dfs_ros.cli.ros_depth_node"])
def test_programs_choose_before_numpy_is_imported(module: str) -> None:
    code = f"import sys, {module}; print({{'numpy', 'torch', 'scipy'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_small_planes_get_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 8)
    assert [cores.threads_for(60 * 80, wanted) for wanted in (0, 4)] == [1, 1]
    assert [cores.threads_for(240 * 320, wanted) for wanted in (0, 4)] == [8, 4]


@pytest.mark.parametrize("threads", [1, 3])
def test_each_is_done_and_the_first_error_is_raised(threads: int) -> None:
    done: list[int] = []
    cores.for_each(done.append, 20, threads)
    assert sorted(done) == list(range(20))
    cores.for_each(done.append, 0, threads)
    assert len(done) == 20
    with pytest.raises(ZeroDivisionError):
        cores.for_each(lambda i: 1 // (i - 3), 20, threads)  # type: ignore[arg-type, return-value]
