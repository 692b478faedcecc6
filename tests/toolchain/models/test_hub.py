"""Ids on the hub: downloaded once, without pickles, then used offline; what cannot be had is said in one line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dq_toolchain.toolchain.models.hub import is_hub_id
from tests.tiny_pipelines import save_sd

COMMIT = "0" * 40
LOAD = "import sys; from dq_toolchain.toolchain.models.loading import load_model; m = load_model(*sys.argv[1:]); print(m.id, m.weight_hash)"  # noqa: E501


@contextmanager
def hub(folder: Path, asked: list[str]) -> Iterator[str]:
    """A server that answers as the hub does for one repository, owner/tiny."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/api/models/owner/tiny/tree/"):
                files = [(str(p.relative_to(folder)), p.stat().st_size) for p in folder.rglob("*") if p.is_file()]
                self._send(
                    json.dumps(
                        [{"type": "file", "path": n, "size": size, "oid": "0" * 40} for n, size in files]
                    ).encode()
                )
            elif path.startswith("/api/models/owner/tiny"):
                names = [{"rfilename": str(p.relative_to(folder))} for p in folder.rglob("*") if p.is_file()]
                self._send(json.dumps({"id": "owner/tiny", "sha": COMMIT, "siblings": names}).encode())
            elif path.startswith(f"/owner/tiny/resolve/{COMMIT}/"):
                asked.append(path.split(f"{COMMIT}/")[1])
                self._send((folder / asked[-1]).read_bytes())
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.end_headers()

        do_HEAD = do_GET

        def _send(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", hashlib.sha256(content).hexdigest())
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def load(home: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", LOAD, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_model_is_downloaded_once_and_then_used_offline(tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "sd")
    for name in (
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "model.ckpt",
        "pipeline.py",
    ):
        (folder / name).write_bytes(b"never asked for")
    asked: list[str] = []
    with hub(folder, asked) as endpoint:
        first = load(tmp_path / "home", endpoint, "owner/tiny")
        unknown = load(tmp_path / "home", endpoint, "owner/other")
        assert not any("fp16" in name for name in asked)
        load(tmp_path / "home", endpoint, "owner/tiny", "fp16")  # not in the cache yet
        assert "unet/diffusion_pytorch_model.fp16.safetensors" in asked
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("owner/tiny ")
    assert "unet/diffusion_pytorch_model.safetensors" in asked
    assert {"text_encoder/model.safetensors", "scheduler/scheduler_config.json", "vae/config.json"} <= set(asked)
    assert not any(name.endswith((".bin", ".ckpt", ".py")) for name in asked)
    assert "the hub has no owner/other, or keeps it private" in unknown.stderr
    again = load(tmp_path / "home", "http://127.0.0.1:9", "owner/tiny")
    assert (again.returncode, again.stdout) == (0, first.stdout)


def test_a_model_in_another_variant_only_says_which(tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "sd")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_stem("diffusion_pytorch_model.fp16"))
    with hub(folder, []) as endpoint:
        found = load(tmp_path / "home", endpoint, "owner/tiny")
        assert found.returncode != 0
        assert (
            "owner/tiny has no diffusion_pytorch_model.safetensors for its network; add --variant fp16" in found.stderr
        )
        assert load(tmp_path / "home", endpoint, "owner/tiny", "fp16").returncode == 0


def test_without_network_an_unknown_id_is_a_clear_error(tmp_path: Path) -> None:
    found = load(tmp_path / "home", "http://127.0.0.1:9", "owner/tiny")
    assert found.returncode != 0
    last = found.stderr.strip().splitlines()[-1]
    assert "owner/tiny is not on this machine and cannot be downloaded" in last
    assert "connect to the network once, or give the folder" in last


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", True),
        ("owner/name@v1.0", True),
        ("a.b-c/d_e.f", True),
        ("name", False),
        ("a/b/c", False),
        ("./a/b", False),
        ("./name", False),
        ("../name", False),
        ("~/name", False),
        ("models/photo.safetensors", False),
        ("models/photo.CKPT", False),
    ],
)
def test_what_an_id_looks_like(name: str, expected: bool) -> None:
    assert is_hub_id(name) is expected


def test_a_network_that_is_not_supported_is_refused_after_its_config(tmp_path: Path) -> None:
    """Not a byte of the weights is asked for."""
    folder = save_sd(tmp_path / "sd")
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"in_channels": 9}))
    asked: list[str] = []
    with hub(folder, asked) as endpoint:
        found = load(tmp_path / "home", endpoint, "owner/tiny")
    assert "in_channels 9 and out_channels 4 differ (an inpainting" in found.stderr
    assert asked
    assert all(name.endswith(".json") for name in asked)
