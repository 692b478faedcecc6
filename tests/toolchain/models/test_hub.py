"""Ids on the hub: downloaded once, without pickles, then used offline; what cannot be had is said in one line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dq_toolchain.toolchain.models.hub import is_hub_id
from tests.tiny_pipelines import save_sd

COMMIT = "0" * 40
LOADING = """
import json, sys
from dq_toolchain.toolchain.errors import ToolchainError
from dq_toolchain.toolchain.models.loading import load_model
for line in sys.stdin:
    try:
        model = load_model(*json.loads(line))
        said = {"loaded": f"{model.id} {model.weight_hash}"}
    except ToolchainError as error:
        said = {"refused": str(error)}
    print(json.dumps(said), flush=True)
"""
NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Repository:
    """A folder that the hub has, and which of its files were asked for."""

    folder: Path
    asked: list[str] = field(default_factory=list)


class Hub:
    """A server that answers as the hub does, for the repositories given to it."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        id_ = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        repository = self.repositories.get(id_)
        if repository is None:
            request.send_response(404)
            request.send_header("X-Error-Code", "RepoNotFound")
            request.end_headers()
            return
        files = {
            str(file.relative_to(repository.folder)): file for file in repository.folder.rglob("*") if file.is_file()
        }
        if path.startswith(f"/api/models/{id_}/tree/"):
            content = json.dumps(
                [{"type": "file", "path": n, "size": file.stat().st_size, "oid": "0" * 40} for n, file in files.items()]
            ).encode()
        elif path.startswith(f"/api/models/{id_}"):
            content = json.dumps(
                {"id": id_, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            ).encode()
        else:
            repository.asked.append(path.split(f"{COMMIT}/")[1])
            content = files[repository.asked[-1]].read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.send_header("ETag", hashlib.sha256(content).hexdigest())
        request.send_header("X-Repo-Commit", COMMIT)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)


class Loader:
    """A process that loads models by their ids from a hub, one after the other. The hub's library reads the address and
    the folder of its cache when it is imported, so that both belong to a process."""

    def __init__(self, home: Path, endpoint: str) -> None:
        variables = {
            "HF_HOME": str(home),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOADING],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str) -> dict[str, str]:
        """``loaded``: the id and the hash of the weights; or ``refused``: why not."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        said: dict[str, str] = json.loads(self.process.stdout.readline())
        return said


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def load(hub: Hub, home: Path) -> Iterator[Loader]:
    loader = Loader(home, hub.address)
    yield loader
    loader.process.kill()
    loader.process.wait()


@pytest.fixture(scope="module")
def load_offline(home: Path) -> Iterator[Loader]:
    """Another process, which has the same cache and no network."""
    loader = Loader(home, NOWHERE)
    yield loader
    loader.process.kill()
    loader.process.wait()


def test_a_model_is_downloaded_once_and_then_used_offline(
    hub: Hub, load: Loader, load_offline: Loader, tmp_path: Path
) -> None:
    folder = save_sd(tmp_path / "sd")
    for name in (
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "model.ckpt",
        "pipeline.py",
    ):
        (folder / name).write_bytes(b"never asked for")
    repository = hub.repositories["owner/tiny"] = Repository(folder)
    asked = repository.asked
    first = load("owner/tiny")
    unknown = load("owner/other")
    assert not any("fp16" in name for name in asked)
    load("owner/tiny", "fp16")  # not in the cache yet
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in asked
    assert first["loaded"].startswith("owner/tiny ")
    assert "unet/diffusion_pytorch_model.safetensors" in asked
    assert {"text_encoder/model.safetensors", "scheduler/scheduler_config.json", "vae/config.json"} <= set(asked)
    assert not any(name.endswith((".bin", ".ckpt", ".py")) for name in asked)
    assert "the hub has no owner/other, or keeps it private" in unknown["refused"]
    assert load_offline("owner/tiny") == first


def test_a_model_in_another_variant_only_says_which(hub: Hub, load: Loader, tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "sd")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_stem("diffusion_pytorch_model.fp16"))
    hub.repositories["owner/variant"] = Repository(folder)
    text = "owner/variant has no diffusion_pytorch_model.safetensors for its network; add --variant fp16"
    assert text in load("owner/variant")["refused"]
    assert load("owner/variant", "fp16")["loaded"].startswith("owner/variant ")


def test_without_network_an_unknown_id_is_a_clear_error(load_offline: Loader) -> None:
    refused = load_offline("owner/never")["refused"]
    assert "owner/never is not on this machine and cannot be downloaded" in refused
    assert "connect to the network once, or give the folder" in refused


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


def test_a_network_that_is_not_supported_is_refused_after_its_config(hub: Hub, load: Loader, tmp_path: Path) -> None:
    """Not a byte of the weights is asked for."""
    folder = save_sd(tmp_path / "sd")
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"in_channels": 9}))
    repository = hub.repositories["owner/inpainting"] = Repository(folder)
    assert "in_channels 9 and out_channels 4 differ (an inpainting" in load("owner/inpainting")["refused"]
    assert repository.asked
    assert all(name.endswith(".json") for name in repository.asked)
