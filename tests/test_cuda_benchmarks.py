"""The GPU's benchmarks, tiny, on this host: so that they run when there is a GPU at last."""

import json
import sys

import cuda_host
import fake_cupy
import pytest

from benchmarks import cuda, cuda_dumps


@pytest.mark.skipif(cuda_host.COMPILER is None, reason="there is no g++")
def test_all_is_measured_and_written_down_cuda(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    monkeypatch.setattr(cuda, "SHAPES", [("float32", 10), ("bfloat16", 10), ("float64", 40)])
    monkeypatch.setattr(cuda_dumps, "DUMPS", [("plain", 10, 40 << 20), ("snappy", 3, 12 << 20)])
    path = cuda.main(["--quick", "-o", str(tmp_path / "found.json")])
    told = json.loads(path.read_text())
    assert told["gpu"]["devices"][0]["name"] == "Fake 9000"
    cases = {(m["case"], m["competitor"], m["dtype"]) for m in told["measurements"]}
    assert {("stream", "read", "float32"), ("stream", "copy", "float32")} <= cases
    assert {("score", "fastdiv", dtype) for dtype in ("float32", "bfloat16", "float64")} <= cases
    assert ("score", "CuPy", "float32") in cases
    assert ("transitions", "fastdiv", "float32") in cases
    assert ("stream", "from pinned memory", "uint8") in cases
    for name in ("host: read alone", "fastdiv, GPU", "fastdiv, CPU"):
        assert {(f"dump, {layout}", name, "float32") for layout in ("plain", "snappy")} <= cases
    assert all(0 < m["best_s"] <= m["median_s"] for m in told["measurements"])
    assert "| score | float32 | 10 | fastdiv |" in capsys.readouterr().out
