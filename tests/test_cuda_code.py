"""Machine code for GPUs: made as it must be, kept, and found again."""

import sys

import fake_cupy
import pytest

from fastdiv.backends import why_not
from fastdiv_kernels.cuda import compiled, sources


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fastdiv" / "cuda"


def made(nvrtc, capability=90, source="flags", definitions=()):
    return compiled.code_of(nvrtc, source, definitions, capability)


def test_code_is_made_once_and_kept_cuda(home):
    nvrtc = fake_cupy.Nvrtc()
    code = made(nvrtc)
    assert made(nvrtc) == code
    assert made(fake_cupy.Nvrtc()) == code  # of another process
    assert len(nvrtc.made) == 1
    assert not nvrtc.live
    (file,) = home.iterdir()
    assert file.name.startswith("flags-")


def test_code_is_made_apart_for_all_that_it_is_made_from_cuda(home, monkeypatch):
    codes = [made(fake_cupy.Nvrtc(), 80), made(fake_cupy.Nvrtc(), 90)]
    codes += [made(fake_cupy.Nvrtc(), 90, "tally", (("LOSS_BYTES", n),)) for n in (4, 8)]
    assert len(set(codes)) == len(list(home.iterdir())) == 4
    monkeypatch.setattr(fake_cupy.Nvrtc, "getVersion", lambda self: (12, 9))
    nvrtc = fake_cupy.Nvrtc()
    made(nvrtc)
    assert len(nvrtc.made) == 1


@pytest.mark.parametrize("damage", [b"", b"cut off", "half", "changed"])
def test_a_file_that_is_not_whole_counts_as_none_cuda(home, damage):
    code = made(fake_cupy.Nvrtc())
    (file,) = home.iterdir()
    whole = file.read_bytes()
    changed = {"half": whole[: len(whole) // 2], "changed": whole[:-1] + bytes([whole[-1] ^ 1])}
    file.write_bytes(changed.get(damage, damage))
    nvrtc = fake_cupy.Nvrtc()
    assert made(nvrtc) == code
    assert len(nvrtc.made) == 1
    assert file.read_bytes() == whole


def test_where_nothing_can_be_kept_it_is_compiled_each_time_cuda(home, monkeypatch):
    home.parent.parent.mkdir(exist_ok=True)
    home.parent.write_text("no directory")
    for place in ("a file", None):
        if place is None:
            monkeypatch.setattr(compiled, "cache_of_the_user", lambda: None)
        nvrtc = fake_cupy.Nvrtc()
        assert made(nvrtc) == made(nvrtc)
        assert len(nvrtc.made) == 2


def test_no_more_files_are_kept_than_may_be_cuda(home, monkeypatch):
    monkeypatch.setattr(compiled, "MOST_FILES", 3)
    for n in range(6):
        made(fake_cupy.Nvrtc(), 90, "flags", (("N", n),))
    assert len(list(home.iterdir())) == 3


def test_a_device_newer_than_the_compiler_has_its_driver_compile_cuda():
    nvrtc = fake_cupy.Nvrtc()
    code = made(nvrtc, 121)
    assert isinstance(code, bytes)
    assert nvrtc.made[0][1][2] == "--gpu-architecture=compute_90"
    assert code.endswith(b" ")  # of getPTX


def test_a_device_older_than_all_is_refused_cuda():
    with pytest.raises(RuntimeError, match=r"CUDA 13\.0 makes no code .* capability 7\.5"):
        made(fake_cupy.Nvrtc(), 75)


def test_a_device_that_is_too_old_is_told_before_cuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    assert why_not("cuda") is None
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    monkeypatch.setattr(fake_cupy.Device, "compute_capability", "75")
    assert why_not("cuda").startswith("the GPU has compute capability 7.5, but 8.0 is needed")


def test_what_the_compiler_said_is_told_cuda(home):
    nvrtc = fake_cupy.Nvrtc()
    with pytest.raises(RuntimeError, match=r"flags\.cu does not compile .*: line 1: no"):
        made(nvrtc, 90, "flags", (("FAIL", 1),))
    assert not nvrtc.live
    assert not home.exists()


def test_numbers_that_are_not_normal_are_kept_cuda():
    nvrtc = fake_cupy.Nvrtc()
    for name in sources.names():
        made(nvrtc, 90, name)
    for _, options in nvrtc.made:
        assert not [option for option in options if "ftz" in option or "fast" in option]
