"""All CUDA sources compile for the GPUs that are in use; needs NVRTC, and no GPU."""

import functools
import itertools
import re

import pytest

from fastdiv_kernels.cuda import sources

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# What each source is compiled with: all combinations.
LOSSES = {"LOSS_BYTES": (4, 8)}
OF_PREDICTIONS = {"DTYPE": (0, 1, 2, 3), "KIND": (0, 1, 2)}
DEFINITIONS = {
    "classes": LOSSES,
    "distributions": LOSSES,
    "dynamics": LOSSES,
    "flags": {},
    "labels": {"LABEL_BYTES": (1, 2, 4, 8), "SIGNED": (0, 1)},
    "profile": {"VALUE": (0, 1, 2, 3), "PROBS": (0, 1)},
    "score_few": OF_PREDICTIONS,
    "score_long": OF_PREDICTIONS,
    "score_rows": OF_PREDICTIONS,
    "tally": LOSSES,
    "temper": {},
    "temperatures": LOSSES,
    "transitions": LOSSES,
}
# Registers of a thread at most, on sm_90: for as many blocks as a multiprocessor is given.
REGISTERS = {
    "profile_vectors": 64, "profile_curves": 80, "profile_long": 80, "tally_rows": 128,
    "tally_curves": 88, "temper_rows": 64, "temper_curves": 64,
}  # fmt: skip
REGISTERS_OF_TOTALS = {  # by the size of losses
    "classes": {4: 64, 8: 64},
    "distributions": {4: 64, 8: 96},
    "dynamics": {4: 64, 8: 64},
    "tally": {4: 80, 8: 112},
    "transitions": {4: 64, 8: 64},
}


def every_build():
    for name in sources.names():
        choices = DEFINITIONS[name]
        for values in itertools.product(*choices.values()):
            defined = tuple(zip(choices, values, strict=True))
            for architecture in ARCHITECTURES:
                words = [name, *(f"{k}{v}" for k, v in defined), architecture]
                yield pytest.param(name, defined, architecture, id="-".join(map(str, words)))


@functools.cache
def compiled(name, defined, architecture):
    """Return the binary of a source and what the compiler says of it."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed")

    def sound(result):
        status, *values = result
        assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, nvrtc.nvrtcGetErrorString(status)
        return values[0] if values else None

    text = sources.text(name).encode()
    program = sound(nvrtc.nvrtcCreateProgram(text, f"{name}.cu".encode(), 0, [], []))
    options = [*sources.OPTIONS, f"--gpu-architecture={architecture}", "--ptxas-options=-v",
               "--ptxas-options=--warn-on-spills"]  # fmt: skip
    options += [f"-D{k}={v}" for k, v in defined]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    log = b" " * sound(nvrtc.nvrtcGetProgramLogSize(program))
    sound(nvrtc.nvrtcGetProgramLog(program, log))
    said = log.rstrip(b"\0 ").decode()
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, said
    binary = b" " * sound(nvrtc.nvrtcGetCUBINSize(program))
    sound(nvrtc.nvrtcGetCUBIN(program, binary))
    return binary, said


def assembly(name, defined):
    """Return the PTX of a source, which is what ptxas makes a binary from."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed")
    text = sources.text(name).encode()
    _, program = nvrtc.nvrtcCreateProgram(text, f"{name}.cu".encode(), 0, [], [])
    options = [*sources.OPTIONS, "--gpu-architecture=compute_90"]
    options += [f"-D{k}={v}" for k, v in defined]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    _, size = nvrtc.nvrtcGetPTXSize(program)
    ptx = b" " * size
    nvrtc.nvrtcGetPTX(program, ptx)
    return ptx.decode()


@pytest.mark.parametrize(("name", "defined", "architecture"), list(every_build()))
def test_cuda_sources_compile(name, defined, architecture):
    binary, said = compiled(name, defined, architecture)
    assert len(binary) > 1000
    assert "spill" not in said.lower() or "0 bytes spill" in said, said


@pytest.mark.parametrize("name", ["profile", "temper", "temperatures"])
def test_kernels_take_no_more_registers_than_are_there_and_spill_none(name):
    choices = DEFINITIONS[name]
    for values in itertools.product(*choices.values()):
        _, said = compiled(name, tuple(zip(choices, values, strict=True)), "sm_90")
        assert set(re.findall(r"(\d+) bytes spill", said)) == {"0"}, said
        used = re.findall(r"entry function '(\w+)'(?:.|\n)*?Used (\d+) registers", said)
        assert {kernel for kernel, _ in used} == set(sources.kernels(name))
        for kernel, registers in used:
            assert int(registers) <= REGISTERS[kernel], (kernel, values)


@pytest.mark.parametrize("loss", [4, 8])
@pytest.mark.parametrize("name", REGISTERS_OF_TOTALS)
def test_kernels_leave_registers_to_other_blocks(name, loss):
    _, said = compiled(name, (("LOSS_BYTES", loss),), "sm_90")
    used = [int(x) for x in re.findall(r"Used (\d+) registers", said)]
    assert used
    assert max(used) <= REGISTERS_OF_TOTALS[name][loss], said
    assert said.count("0 bytes stack frame") == said.count("bytes stack frame"), said


@pytest.mark.parametrize(
    ("name", "columns"), [("tally", 4), ("distributions", 3), ("classes", 3), ("transitions", 6)]
)
def test_columns_are_read_16_bytes_at_once(name, columns):
    ptx = assembly(name, (("LOSS_BYTES", 4),))
    assert len(re.findall(r"ld\.global\.nc\.v4", ptx)) == columns
    assert not re.findall(r"(?:atom|red)\.[\w.]*\.f(?:16|32|64)", ptx)
    assert ".ftz" not in ptx  # small parts are no normal numbers


# Registers of a thread, so that a multiprocessor's 65,536 hold as many warps as are said.
MOST_REGISTERS = {
    # up to 16 bits, 32 and 64
    "score_few": (48, 48, 80),  # 40, 40 and 24 warps
    "score_rows": (80, 96, 128),  # 24, 20 and 16
    "score_parts": (64, 64, 80),  # 32, 32 and 24
}


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("dtype", [0, 1, 2, 3])
@pytest.mark.parametrize("source", ["score_few", "score_rows", "score_long"])
def test_a_multiprocessor_holds_many_warps_that_score(source, dtype, kind):
    _, said = compiled(source, (("DTYPE", dtype), ("KIND", kind)), "sm_90")
    found = re.findall(r"entry function '(\w+)'[^\x00]*?Used (\d+) registers", said)
    assert {name for name, _ in found} == set(sources.kernels(source))
    for name, registers in found:
        if name in MOST_REGISTERS:
            assert int(registers) <= MOST_REGISTERS[name][max(0, dtype - 1)], name
