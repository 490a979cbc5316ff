"""CuPy as it is, on this host: what fastdiv asks of it is what it does, GPU or not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CANNOT = 77  # what the plugin ends with, having said why


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA's runtime is replaced on Linux alone")
def test_cupy_does_over_this_host_what_is_asked_of_it_cuda(tmp_path):
    """How arrays, streams, devices and lanes are dealt with; all tests of kernels may run so."""
    command = [
        sys.executable, "-X", "faulthandler", "-m", "pytest", "-q", "-p", "cupy_on_host",
        "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}", str(HERE / "cupy_cases.py"),
    ]  # fmt: skip
    root = HERE.parent
    paths = [str(HERE), str(root), str(root / "kernels"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, timeout=900,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
