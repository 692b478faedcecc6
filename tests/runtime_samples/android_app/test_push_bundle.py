"""A bundle on its way to the app."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime_samples.android_app.jvm import APP
from tests.runtime_samples.phone import Phone

PUSH = APP / "push_bundle.sh"


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    return Phone(tmp_path, "bundle.json", "pipeline.json", "model.pte")


def started(phone: Phone) -> Path:
    """The app has been started; its folder on the phone."""
    folder = phone.disk / "sdcard" / "Android" / "data" / "org.dqtoolchain.draw" / "files" / "bundles"
    folder.mkdir(parents=True)
    return folder


def test_a_bundle_is_there_whole_and_replaces_an_older_one(phone: Phone) -> None:
    folder = started(phone)
    (folder / "cat").mkdir()
    (folder / "cat" / "old").touch()
    done = phone.run(PUSH, phone.bundle, "cat")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["cat"]
    assert sorted(path.name for path in (folder / "cat").iterdir()) == ["bundle.json", "model.pte", "pipeline.json"]


def test_its_name_is_the_folders(phone: Phone) -> None:
    folder = started(phone)
    bundle = phone.bundle.rename(phone.bundle.with_name("sd-turbo_8.1"))
    assert phone.run(PUSH, bundle).stdout == "/sdcard/Android/data/org.dqtoolchain.draw/files/bundles/sd-turbo_8.1\n"
    assert [path.name for path in folder.iterdir()] == ["sd-turbo_8.1"]


def test_a_push_that_fails_leaves_the_older_one(phone: Phone) -> None:
    folder = started(phone)
    (folder / "cat").mkdir()
    (phone.bundle / "gone").symlink_to(phone.disk / "nowhere" / "else")
    (phone.bundle.parent / "bin" / "cp").write_text("#!/bin/sh\nexit 1\n")
    (phone.bundle.parent / "bin" / "cp").chmod(0o755)
    done = phone.run(PUSH, phone.bundle, "cat")
    assert done.returncode == 2
    assert "cannot push" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["cat"]


@pytest.mark.parametrize(
    ("words", "removed", "text"),
    [
        (("cat",), "", "install the app and start it once"),
        (("../cat",), "", "the name must be of letters, digits, '.', '_' and '-'"),
        ((".cat",), "", "and not begin with '.', got '.cat'; give another one"),
        ((), "", "got 'a bundle'; give another one"),
        (("cat",), "bundle.json", "is no bundle (it has no bundle.json)"),
        (("cat",), "pipeline.json", "holds a network alone, without text encoder and decoder; export the whole pipeline"),
    ],
)  # fmt: skip
def test_what_is_refused(words: tuple[str, ...], removed: str, text: str, phone: Phone) -> None:
    if removed:
        (phone.bundle / removed).unlink()
    done = phone.run(PUSH, phone.bundle, *words)
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_folder_is_the_apps() -> None:
    script = (APP / "app" / "build.gradle.kts").read_text()
    assert 'applicationId = "org.dqtoolchain.draw"' in script
    model = (
        APP / "app" / "src" / "main" / "kotlin" / "org" / "dqtoolchain" / "draw" / "app" / "MainActivity.kt"
    ).read_text()
    assert 'getExternalFilesDir("bundles")' in model
