"""Machine code of the kernels: compiled once by NVRTC or nvcc, then cached.

    python -m dfs_ros.cost_volume.cuda.build --arch 87 --arch 90       ahead, on a machine with or without a GPU

Cached under `$XDG_CACHE_HOME/dfs_ros/kernels`, named by the hash of source and options, architecture and compiler. A
damaged file is compiled again; without a writable folder every start compiles, with a warning. No headers are needed,
neither torch's nor CUDA's.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import functools
import hashlib
import importlib.util
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
from typing import Protocol

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
    libraries = _nvrtc_libraries()
    if not libraries:
        causes.append("NVRTC: no libnvrtc in the nvidia wheels, beside torch, in a CUDA toolkit or on the library path")
    for library in libraries:
        try:
            yield Nvrtc(library)
        except (OSError, AttributeError, RuntimeError) as error:
            causes.append(f"NVRTC {library}: {error}")
    nvcc = next((p for p in _nvcc_candidates() if p is not None and Path(p).is_file()), None)
    if nvcc is None:
        causes.append("nvcc: not on PATH, in CUDA_HOME or in /usr/local/cuda")
        return
    try:
        yield Nvcc(nvcc)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        causes.append(f"nvcc {nvcc}: {error}")


def _nvrtc_libraries() -> list[str]:
    folders: list[Path] = []
    wheels = importlib.util.find_spec("nvidia")
    for wheel in (wheels.submodule_search_locations or []) if wheels else []:
        folders += [*Path(wheel).glob("cu*/lib"), Path(wheel) / "cuda_nvrtc" / "lib"]
    torch = importlib.util.find_spec("torch")  # finds it without importing it
    folders += [Path(package) / "lib" for package in (torch.submodule_search_locations or [])] if torch else []
    for toolkit in _toolkits():
        folders += [toolkit / "lib64", toolkit / "lib", *toolkit.glob("targets/*/lib")]
    found = [
        str(file) for folder in folders for file in sorted(folder.glob("libnvrtc[.-]*so*")) if "alt" not in file.name
    ]
    on_path = ctypes.util.find_library("nvrtc")
    return list(dict.fromkeys([*found, *([on_path] if on_path else [])]))


def _toolkits() -> list[Path]:
    named = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    return [Path(root) for root in named if root]


def _nvcc_candidates() -> list[str | None]:
    return [shutil.which("nvcc"), *(str(root / "bin" / "nvcc") for root in _toolkits())]


class Nvrtc:
    """NVIDIA's run-time compiler, through its C interface."""

    def __init__(self, library: str) -> None:
        self._lib = ctypes.CDLL(library)
        self._lib.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.name = f"nvrtc-{major.value}.{minor.value}"
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        known = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", known)
        self.architectures = tuple(sorted(known))

    def compile(self, architecture: int, ptx: bool) -> bytes:
        text = sources()
        program = ctypes.c_void_p()
        count = len(HEADER_FILES)
        headers = (ctypes.c_char_p * count)(*(text[name].encode() for name in HEADER_FILES))
        names = (ctypes.c_char_p * count)(*(name.encode() for name in HEADER_FILES))
        source, name = text[KERNEL_FILE].encode(), KERNEL_FILE.encode()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source, name, ctypes.c_int(count), headers, names)
        try:
            options = [*_OPTIONS, f"--gpu-architecture={'compute' if ptx else 'sm'}_{architecture}"]
            values = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
            status = self._lib.nvrtcCompileProgram(program, ctypes.c_int(len(options)), values)
            if status != 0:
                log = self._text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
                raise RuntimeError(f"{self._error(status)} for sm_{architecture}\n{log.decode(errors='replace')}")
            kind = "PTX" if ptx else "CUBIN"
            return self._text(program, f"nvrtcGet{kind}Size", f"nvrtcGet{kind}")
        finally:
            self._lib.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, size_function: str, function: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(size_function, program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call(function, program, text)
        return text.raw

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._lib, function)(*arguments)
        if status != 0:
            raise RuntimeError(f"{function}: {self._error(status)}")

    def _error(self, status: int) -> str:
        return str(self._lib.nvrtcGetErrorString(status).decode())


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
