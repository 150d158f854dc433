"""Machine code of the kernels: compiled once by NVRTC (through cuda-bindings) or nvcc, then cached.

    python -m dfs_ros.cost_volume.cuda.build --arch 87 --arch 90       ahead, on a machine with or without a GPU

Cached under `$XDG_CACHE_HOME/dfs_ros/kernels`, named by the hash of source and options, architecture and compiler. A
damaged file is compiled again; without a writable folder every start compiles, with a warning. No headers are needed,
neither torch's nor CUDA's.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dfs_ros.system.cache import keep, read_kept
from dfs_ros.system.folders import cache_folder

ARCHITECTURES = (75, 80, 86, 87, 89, 90, 110, 120)  # Turing to Blackwell, Jetson Orin (87) and Thor (110) among them
KERNEL_FILE = "kernels.cu"
HEADER_FILES = ("elements.cuh", "phases.cuh", "aggregation.cuh")
_OPTIONS = ("--std=c++17", "-lineinfo")
_COMPILE_TIMEOUT_S = 300
_THOR = {110: 101}  # as CUDA 12.8 and 12.9 called it

_log = logging.getLogger(__name__)


class CudaUnavailable(ValueError):
    """CUDA is requested, but unusable; the message names everything tried."""


@dataclass(frozen=True)
class MachineCode:
    """A cubin, or PTX (ending in a zero byte) that the driver compiles; `origin` for messages."""

    code: bytes
    origin: str


class Compiler(Protocol):
    """Compiler of the kernels."""

    @property
    def name(self) -> str:
        """Compiler and version, as part of a file name: nvrtc-13.0."""

    @property
    def architectures(self) -> tuple[int, ...]:
        """Compute capabilities it knows, times ten, ascending."""

    def compile(self, architecture: int, ptx: bool) -> bytes:
        """Cubin or PTX. Raises RuntimeError with the compiler's log."""


def codes(architecture: int, causes: list[str], folder: Path | None = None) -> Iterator[MachineCode]:
    """Yield machine code for a compute capability (times ten), best first.

    Failures are appended to `causes`. `folder`: of the cache.
    """
    folder = folder or cache_folder("kernels")
    tried = set()
    for compiler in compilers(causes):
        target, ptx = target_of(architecture, compiler.architectures)
        file = folder / file_name(target, ptx, compiler.name)
        if file.name in tried:
            continue
        tried.add(file.name)
        code = read_kept(file)
        if code is None:
            try:
                code = compiler.compile(target, ptx)
            except (RuntimeError, OSError) as error:
                causes.append(f"{compiler.name}: {error}")
                continue
            keep(file, code)
        yield MachineCode(code, file.name)
    # Compiled ahead, by a compiler that is not installed here.
    for file in sorted(folder.glob(file_name(architecture, False, "*"))):
        code = None if file.name in tried else read_kept(file)
        if code is not None:
            yield MachineCode(code, file.name)


def target_of(architecture: int, known: Sequence[int]) -> tuple[int, bool]:
    """(architecture, True for PTX) to compile for a card, given a compiler's architectures.

    A card newer than the compiler gets the PTX of the newest one known, which the card's driver compiles.
    """
    if architecture in known:
        return architecture, False
    if _THOR.get(architecture) in known:
        return _THOR[architecture], False
    older = [a for a in known if a < architecture]
    return (max(older), True) if older else (architecture, False)


@functools.cache
def sources() -> dict[str, str]:
    """Source text of the kernels, by file name."""
    here = Path(__file__).resolve().parent
    return {name: (here / name).read_text() for name in (KERNEL_FILE, *HEADER_FILES)}


def file_name(architecture: int, ptx: bool, compiler: str) -> str:
    """Name of the machine code in the cache."""
    content = "\0".join([*sources().values(), *_OPTIONS])
    digest = hashlib.sha256(content.encode()).hexdigest()[:24]
    return f"{digest}-sm_{architecture}-{compiler}.{'ptx' if ptx else 'cubin'}"


def compilers(causes: list[str]) -> Iterator[Compiler]:
    """Available compilers, NVRTC first, then nvcc; reasons for missing ones go to `causes`."""
    try:
        yield Nvrtc()
    except ImportError as error:
        causes.append(f"NVRTC: cuda-bindings cannot be imported ({error})")
    except RuntimeError as error:
        causes.append(f"NVRTC: {error}")
    nvcc = next((p for p in _nvcc_candidates() if p is not None and Path(p).is_file()), None)
    if nvcc is None:
        causes.append("nvcc: not on PATH, in CUDA_HOME or in /usr/local/cuda")
        return
    try:
        yield Nvcc(nvcc)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        causes.append(f"nvcc {nvcc}: {error}")


def _nvcc_candidates() -> list[str | None]:
    toolkits = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    return [shutil.which("nvcc"), *(str(Path(root) / "bin" / "nvcc") for root in toolkits if root)]


def call(function: Any, *arguments: object) -> Any:
    """Result of a function of cuda-bindings, None without one. Raises RuntimeError for a failure."""
    status, *results = function(*arguments)
    if int(status) != 0:
        raise RuntimeError(f"{function.__name__}: {status.name} ({int(status)})")
    return results[0] if len(results) == 1 else tuple(results) or None


class Nvrtc:
    """NVIDIA's run-time compiler. Raises ImportError without cuda-bindings, RuntimeError without NVRTC."""

    def __init__(self) -> None:
        from cuda.bindings import nvrtc

        self._nvrtc = nvrtc
        self.name = "nvrtc-{}.{}".format(*call(nvrtc.nvrtcVersion))
        self.architectures = tuple(sorted(call(nvrtc.nvrtcGetSupportedArchs)))

    def compile(self, architecture: int, ptx: bool) -> bytes:
        nvrtc, name = self._nvrtc, KERNEL_FILE.encode()
        headers = {header.encode(): source.encode() for header, source in sources().items()}
        source = headers.pop(name)
        program = call(nvrtc.nvrtcCreateProgram, source, name, len(headers), list(headers.values()), list(headers))
        try:
            options = [*_OPTIONS, f"--gpu-architecture={'compute' if ptx else 'sm'}_{architecture}"]
            try:
                call(nvrtc.nvrtcCompileProgram, program, len(options), [option.encode() for option in options])
            except RuntimeError as error:
                log = self._text(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
                text = log.rstrip(b"\0").decode(errors="replace")
                raise RuntimeError(f"{error} for sm_{architecture}\n{text}") from None
            if ptx:
                return self._text(program, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
            return self._text(program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
        finally:
            nvrtc.nvrtcDestroyProgram(program)

    def _text(self, program: Any, size_function: Any, function: Any) -> bytes:
        text = bytearray(call(size_function, program))
        call(function, program, text)
        return bytes(text)


class Nvcc:
    """The compiler of the CUDA toolkit."""

    def __init__(self, path: str) -> None:
        self._path = path
        version = re.search(r"release (\d+\.\d+)", self._run("--version"))
        if version is None:
            raise RuntimeError("did not tell its version")
        self.name = f"nvcc-{version[1]}"
        self.architectures = tuple(
            sorted(int(a) for a in re.findall(r"^sm_(\d+)$", self._run("--list-gpu-code"), re.M))
        )

    def compile(self, architecture: int, ptx: bool) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in sources().items():
                (Path(folder) / name).write_text(text)
            output = Path(folder) / "kernels.out"
            target = f"-arch={'compute' if ptx else 'sm'}_{architecture}"
            self._run(
                "-ptx" if ptx else "-cubin", *_OPTIONS, target, "-o", str(output), str(Path(folder) / KERNEL_FILE)
            )
            return output.read_bytes() + (b"\0" if ptx else b"")

    def _run(self, *arguments: str) -> str:
        command = [self._path, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command[:3])} ...: {done.stderr.strip()[-2000:]}")
        return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Compile the kernels ahead; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dfs_ros.cost_volume.cuda.build", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--arch", type=int, action="append", metavar="NN", help="compute capability times ten, e.g. 87; default: all"
    )
    args = parser.parse_args(argv)
    for architecture in args.arch or ARCHITECTURES:
        causes: list[str] = []
        code = next(codes(architecture, causes), None)
        if code is None:
            print("\n - ".join([f"sm_{architecture}: cannot be compiled here:", *causes]), file=sys.stderr)
            return 1
        print(f"{cache_folder('kernels') / code.origin}: {len(code.code)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
