from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import condic.kernels
from condic.errors import BackendError
from condic.kernels.device import device_image, image, nvrtc

SOURCES = Path(condic.kernels.__file__).parent
KERNELS = {
    name
    for file in (SOURCES / "cuda").glob("*.h")
    for name in re.findall(r"^CONDIC_(?:SERIAL_)?KERNEL (\w+)\(", file.read_text(), re.MULTILINE)
}
CUDA = (13, 0)
ARCHITECTURES = [75, 80, 86, 87, 89, 90, 100, 120]


@pytest.fixture
def no_fatbin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the fatbin is looked for; there is none."""
    fatbin = tmp_path / "kernels.fatbin"
    monkeypatch.setattr(image, "_FATBIN", fatbin)
    return fatbin


def test_a_fatbin_is_taken_as_it_is(no_fatbin: Path) -> None:
    no_fatbin.write_bytes(b"machine code")
    assert device_image(image.OLDEST, CUDA) == b"machine code"


def test_a_gpu_that_is_too_old_is_named() -> None:
    with pytest.raises(BackendError, match=r"capability 7\.0; the kernels need 7\.5 or higher.*--backend ort"):
        device_image((7, 0), CUDA)


def test_without_any_compiler_there_is_a_way_out(no_fatbin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(["libno-such-library.so"]))
    image.compile_image.cache_clear()
    with pytest.raises(BackendError, match=r"built without nvcc.*pip install nvidia-cuda-nvrtc"):
        device_image((9, 0), CUDA)


@pytest.mark.parametrize(("cuda", "major"), [(14, 13), (13, 13), (12, 12), (11, None)])
def test_an_nvrtc_that_is_newer_than_the_driver_is_passed_over(
    cuda: int, major: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(["missing", "13", "12"]))

    def load(name: str) -> SimpleNamespace:
        if name == "missing":
            raise OSError(name)
        return SimpleNamespace(major=int(name))

    monkeypatch.setattr(nvrtc.ctypes, "CDLL", load)
    monkeypatch.setattr(nvrtc, "Nvrtc", lambda library: library)
    if major is None:
        with pytest.raises(BackendError, match=r"of CUDA 12 here, .* of CUDA 11, takes no code.*nvrtc-cu12\)"):
            nvrtc.find_nvrtc(cuda)
    else:
        assert nvrtc.find_nvrtc(cuda).major == major


@pytest.fixture(scope="module")
def compiler() -> nvrtc.Nvrtc:
    """NVRTC, if it is there."""
    try:
        return nvrtc.find_nvrtc(99)
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_every_kernel(compiler: nvrtc.Nvrtc, no_fatbin: Path, architecture: int) -> None:
    code = device_image(divmod(architecture, 10), (99, 0))
    assert code.startswith(b"\x7fELF"), "machine code, not PTX"
    assert code[49] == architecture, "which the flags of an ELF file say"
    assert len(KERNELS) == 11
    for kernel in KERNELS:
        assert b".text." + kernel.encode() in code


@pytest.mark.slow
def test_nvrtc_gives_ptx_for_a_gpu_that_is_newer_than_itself(compiler: nvrtc.Nvrtc, no_fatbin: Path) -> None:
    code = device_image((99, 0), (99, 0)).decode()
    for kernel in KERNELS:
        assert f".entry {kernel}(" in code
    assert "fma." not in code, "the host rounds products too"


def test_nvrtc_says_of_which_cuda_it_is(compiler: nvrtc.Nvrtc) -> None:
    assert compiler.major in (12, 13, 14)


def test_what_nvrtc_says_about_a_program_is_one_line(compiler: nvrtc.Nvrtc) -> None:
    with pytest.raises(BackendError, match=r"nvrtcCompileProgram: NVRTC_ERROR_COMPILATION .*undefined") as caught:
        compiler.compile(b"__global__ void wrong() { missing(); }", (9, 0), [], {})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvcc_compiles_every_kernel_without_spilling_registers(architecture: int, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed (NVIDIA's CUDA toolkit has it)")
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, timeout=60, check=True).stdout
    if f"sm_{architecture}" not in known.split():
        pytest.skip(f"this nvcc does not know sm_{architecture}")
    command = [
        nvcc, "-std=c++17", "-fmad=false", "-Werror=all-warnings", "-Xptxas=-v", f"-arch=sm_{architecture}", "-cubin",
        f"-I{SOURCES}", "-o", tmp_path / "kernels.cubin", SOURCES / "cuda" / "kernels.cu",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    compiled = re.findall(r"Compiling entry function '(\w+)'", done.stderr)
    assert set(compiled) == KERNELS
    assert re.findall(r"(\d+) bytes spill stores", done.stderr) == ["0"] * len(KERNELS)
    used = dict(zip(compiled, map(int, re.findall(r"Used (\d+) registers", done.stderr)), strict=True))
    assert max(used[name] for name in KERNELS - {"rans_pop", "rans_push"}) <= 64, "four blocks fit on a multiprocessor"
