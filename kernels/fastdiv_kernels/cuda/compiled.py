"""Machine code of the sources, by NVRTC; kept in the user's cache from one process to the next.

CuPy's own way to compile adds ``-ftz=true``, with which sums lose what is no normal number, so
NVRTC is called by ourselves. A file in the cache begins with a digest of the rest: one that was
cut off or changed counts as none.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastdiv_kernels.cuda.device import Definitions
from fastdiv_kernels.cuda.sources import OPTIONS, text
from fastdiv_kernels.places import cache_of_the_user, write_whole

DIGEST = 32  # bytes
MOST_FILES = 512  # those that were made first are removed


def code_of(nvrtc: Any, source: str, definitions: Definitions, capability: int) -> bytes:
    """Return a source's code for devices of a compute capability (90: 9.0), as CUDA loads it.

    `nvrtc` is CuPy's. A device that is newer than NVRTC is given what its driver compiles.
    """
    known = [int(x) for x in nvrtc.getSupportedArchs()]
    exactly = capability in known
    newest = max((x for x in known if x <= capability), default=None)
    if newest is None:
        raise RuntimeError(
            f"CUDA {'.'.join(map(str, nvrtc.getVersion()))} makes no code for GPUs of compute "
            f"capability {capability / 10}: install an older one, as of fastdiv[cuda12]"
        )
    options = (
        *OPTIONS, f"--gpu-architecture={'sm' if exactly else 'compute'}_{newest}",
        *(f"-D{name}={value}" for name, value in definitions),
    )  # fmt: skip
    path = _path(source, (text(source), options, nvrtc.getVersion()))
    found = _read(path)
    if found is None:
        found = _compile(nvrtc, source, options, nvrtc.getCUBIN if exactly else nvrtc.getPTX)
        _write(path, found)
    return found


def _compile(nvrtc: Any, source: str, options: tuple[str, ...], result: Any) -> bytes:
    program = nvrtc.createProgram(text(source), f"{source}.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        made: str | bytes = result(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise RuntimeError(f"{source}.cu does not compile ({error}): {log}") from None
    finally:
        nvrtc.destroyProgram(program)
    return made.encode() if isinstance(made, str) else made


def _path(source: str, made_from: object) -> Path | None:
    directory = cache_of_the_user()
    if directory is None:
        return None
    digest = hashlib.blake2b(repr(made_from).encode(), digest_size=16).hexdigest()
    return directory / "cuda" / f"{source}-{digest}"


def _digest(code: bytes) -> bytes:
    return hashlib.blake2b(code, digest_size=DIGEST).digest()


def _read(path: Path | None) -> bytes | None:
    """Return code that was kept, None where there is none that is whole."""
    try:
        whole = b"" if path is None else path.read_bytes()
    except OSError:
        return None
    code = whole[DIGEST:]
    return code if code and whole[:DIGEST] == _digest(code) else None


def _write(path: Path | None, code: bytes) -> None:
    """Keep code, where it can be: otherwise each process compiles."""
    if path is None:
        return
    with suppress(OSError):
        write_whole(path, _digest(code) + code)
        kept = sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime)
        for old in kept[:-MOST_FILES]:
            old.unlink(missing_ok=True)
