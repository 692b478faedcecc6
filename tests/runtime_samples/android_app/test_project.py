"""The Gradle project, the manifest and the resources: that names which one file uses are there in the other."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.runtime_samples.android_app.jvm import APP, JAVA, MAIN, jdk
from tests.runtime_samples.android_app.standin import ANDROID, resources, write_standin

KOTLIN = sorted((MAIN / "kotlin").rglob("*.kt"))
RES = MAIN / "res"
VERSIONS = tomllib.loads((APP / "gradle" / "libs.versions.toml").read_text())
SCRIPTS = {path.name: path.read_text() for path in (*APP.glob("*.kts"), APP / "app" / "build.gradle.kts")}


def test_versions_stand_in_one_place() -> None:
    used = set(re.findall(r"libs\.(versions\.\w+|plugins\.\w+|\w+)", "".join(SCRIPTS.values())))
    own = {name for name in VERSIONS["versions"] if f"versions.{name}" in used}
    assert used == {*(f"versions.{name}" for name in own), "plugins.android", "plugins.kotlin", *VERSIONS["libraries"]}
    of_rows = {row["version"]["ref"] for part in ("plugins", "libraries") for row in VERSIONS[part].values()}
    assert own | of_rows == set(VERSIONS["versions"])
    for name, text in SCRIPTS.items():
        assert not [version for version in VERSIONS["versions"].values() if version in text], name
    readme = (APP / "README.md").read_text()
    for name in ("android", "kotlin", "ndk", "cmake"):
        assert VERSIONS["versions"][name] in readme


def test_the_oldest_android_is_that_of_the_programs() -> None:
    script = (APP.parent / "executorch" / "android" / "build.sh").read_text()
    assert f"-DANDROID_PLATFORM=android-{VERSIONS['versions']['oldest']}" in script
    script = (APP.parent / "qnn" / "android" / "build.sh").read_text()
    assert f"-DANDROID_PLATFORM=android-{VERSIONS['versions']['oldestOfQnn']}" in script
    needed = re.search(r"needs CMake ([\d.]+)", (APP.parent / "executorch" / "cmake" / "executorch.cmake").read_text())
    assert needed is not None
    assert [*map(int, VERSIONS["versions"]["cmake"].split("."))] >= [*map(int, needed[1].split("."))]


def test_gradle_builds_the_library_that_java_loads() -> None:
    cmake = (MAIN / "cpp" / "CMakeLists.txt").read_text()
    script = SCRIPTS["build.gradle.kts"] + (APP / "app" / "build.gradle.kts").read_text()
    (loaded,) = re.findall(r'System\.loadLibrary\("(\w+)"\)', (JAVA / "Generator.java").read_text())
    assert f"add_library({loaded} SHARED" in cmake
    assert f'targets += "{loaded}"' in script
    assert (APP / "app" / re.findall(r'path = file\("(.+)"\)', script)[0]).is_file()
    sources = set(re.findall(r"\w+\.cpp", cmake))
    assert sources == {path.name for path in (MAIN / "cpp").glob("*.cpp")}


def test_gradle_builds_a_runtime_that_cmake_knows() -> None:
    cmake, script = (MAIN / "cpp" / "CMakeLists.txt").read_text(), (APP / "app" / "build.gradle.kts").read_text()
    flavors = re.findall(r'create\("(\w+)"\)', script)
    assert flavors == re.findall(r'DQ_RUNTIME STREQUAL "(\w+)"', cmake) == re.findall(r"-DDQ_RUNTIME=(\w+)", script)
    for flavor in flavors:
        (option,) = re.findall(rf"-DDQ_RUNTIME={flavor}\", \"-D(\w+)=", script)
        assert f"set({option} " in (APP.parent / flavor / "CMakeLists.txt").read_text()
        assert f"install{flavor.capitalize()}Debug" in (APP / "README.md").read_text()
        assert f'runtime_target = "{flavor}"' in (MAIN / "cpp" / f"runtime_{flavor}.cpp").read_text()


def test_another_runtime_is_refused(tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    command = ["cmake", "-S", str(MAIN / "cpp"), "-B", str(tmp_path), "-DDQ_RUNTIME=npu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DQ_RUNTIME must be executorch or qnn, got 'npu'" in done.stderr


def test_the_npu_gets_what_it_needs_of_gradle() -> None:
    """The libraries that ../qnn unpacks, as files on the phone, and its way to the DSP."""
    unpacked, script = APP.parent / "qnn" / "android", (APP / "app" / "build.gradle.kts").read_text()
    assert 'into(layout.buildDirectory.dir("phone"))' in (unpacked / "build.gradle.kts").read_text()
    (place,) = re.findall(r'rootDir\.resolve\("(.+)"\)', script)
    assert (APP / place).resolve() == (unpacked / "build" / "phone").resolve()
    assert "useLegacyPackaging = true" in script
    ours, theirs = (
        [row.attrib for row in ElementTree.parse(path).getroot().iter("uses-native-library")]
        for path in (APP / "app" / "src" / "qnn" / "AndroidManifest.xml", unpacked / "AndroidManifest.xml")
    )
    assert ours == theirs != []
    library = re.findall(r'"(lib\w+\.so)"', (MAIN / "cpp" / "runtime_qnn.cpp").read_text())
    assert all(name in (unpacked / "run.sh").read_text() for name in library)
    assert library


def test_the_manifest_names_what_there_is() -> None:
    manifest = ElementTree.parse(MAIN / "AndroidManifest.xml").getroot()
    assert manifest.findall("uses-permission") == [], "what the README says"
    application = manifest.find("application")
    assert application is not None
    (activity,) = application.findall("activity")
    namespace = re.findall(r'namespace = "(.+)"', (APP / "app" / "build.gradle.kts").read_text())[0]
    name = f"{namespace}{activity.get(f'{ANDROID}name')}"
    assert (MAIN / "kotlin" / (name.replace(".", "/") + ".kt")).is_file()
    (provider,) = application.findall("provider")
    assert provider.get(f"{ANDROID}exported") == "false"
    sharing = next(path for path in KOTLIN if path.name == "Sharing.kt").read_text()
    authority = str(provider.get(f"{ANDROID}authorities"))
    assert authority.replace("${applicationId}", "$packageName") in sharing
    (paths,) = provider.findall("meta-data")
    assert paths.get(f"{ANDROID}resource") == "@xml/pictures"
    (path,) = ElementTree.parse(RES / "xml" / "pictures.xml").getroot().findall("cache-path")
    assert f'File(cacheDir, "{str(path.get("path")).rstrip("/")}")' in sharing


def body_of(function: str, file: str) -> str:
    """Of a function of the app's Kotlin that stands in a class or an object."""
    text = next(path for path in KOTLIN if path.name == file).read_text()
    found = re.search(rf"^    (?:\w+ )*fun {function}\(.*?^    }}$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, function
    return found[0]


def test_bundles_are_listed_whenever_the_screen_comes_back() -> None:
    """The text that a person reads says so; where the app was only in the background, there is no onCreate."""
    assert "open this again" in (RES / "values" / "strings.xml").read_text()
    assert re.search(
        r"if \(!model\.isDrawing \|\| bundles\.isEmpty\(\)\) list\(\)", body_of("onStart", "MainActivity.kt")
    )
    listing = body_of("list", "MainActivity.kt")
    assert listing.index("selectedItemPosition") < listing.index("bundle.adapter = ") < listing.index("setSelection")
    assert "problem = null" in listing, "what was said of the folder before"


def test_a_new_screen_shows_the_drawing_of_the_old_one() -> None:
    """Android makes and destroys screens; the library, and so the drawing, is one in the process."""
    model = next(path for path in KOTLIN if path.name == "DrawingModel.kt").read_text()
    assert re.search(r"^object DrawingModel \{$", model, re.MULTILINE)
    assert "shutdown" not in model, "the next screen draws, too"
    assert "model.onChange = onChange" in body_of("onStart", "MainActivity.kt")
    assert "if (model.onChange === onChange)" in body_of("onStop", "MainActivity.kt"), "the next screen's stays"
    assert "if (isFinishing && model.onChange == null) model.stop()" in body_of("onDestroy", "MainActivity.kt")


def test_a_picture_that_was_not_written_whole_is_not_shared() -> None:
    """Bitmap.compress keeps what a full disk throws, and says it by its result."""
    sharing = next(path for path in KOTLIN if path.name == "Sharing.kt").read_text()
    written = re.search(r"if \(!.*bitmap\.compress\(.*\{.*\n(.*\n)*?.*throw IOException\(.*\n    \}", sharing)
    assert written is not None
    assert sharing.count("compress(") == 1
    assert sharing.index("compress(") < sharing.index("startActivity(")


def test_every_resource_is_there_and_used() -> None:
    there = resources(RES)
    xml = "".join(path.read_text() for path in (*RES.rglob("*.xml"), MAIN / "AndroidManifest.xml"))
    used: dict[str, set[str]] = {kind: set(re.findall(rf'"@{kind}/(\w+)"', xml)) for kind in there}
    for kind, name in re.findall(r"\bR\.(\w+)\.(\w+)", "".join(path.read_text() for path in KOTLIN)):
        used.setdefault(kind, set())
        if kind != "layout" or name != "simple_spinner_dropdown_item":
            used[kind].add(name)
    assert used == there


def test_the_kotlin_compiles_against_androids_signatures(tmp_path: Path) -> None:
    if not (kotlinc := shutil.which("kotlinc")):
        pytest.skip("needs kotlinc")
    sources = write_standin(tmp_path / "src", RES)
    for folder in ("classes", "app"):
        (tmp_path / folder).mkdir()
    java = [jdk() / "bin" / "javac", "-nowarn", "-d", tmp_path / "classes", *sources, *JAVA.glob("*.java")]
    kotlin = [
        kotlinc,
        "-Werror",
        "-Wextra",
        "-jvm-target",
        "17",
        "-cp",
        tmp_path / "classes",
        "-d",
        tmp_path / "app",
        *KOTLIN,
    ]
    for command in (java, kotlin):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "app" / "org" / "dqtoolchain" / "draw" / "app" / "MainActivity.class").is_file()
