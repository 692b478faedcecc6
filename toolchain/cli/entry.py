"""Entry of the command: runs one command line, and turns every mistake into one line.

Exit codes: 0 good, 1 the verdict failed, 2 bad input, 3 the verdict is not decided: more seeds are needed, 130 interrupted.
They do not depend on whether anybody reads what is printed.
"""

from __future__ import annotations

import itertools
import re
import sys

import typer

from dq_toolchain.toolchain.console.printable import LONGEST_ERROR, printable
from dq_toolchain.toolchain.console.quiet import quiet_imports, spin_briefly
from dq_toolchain.toolchain.console.streams import drop_stdout, guard_streams
from dq_toolchain.toolchain.errors import ToolchainError

INTERRUPTED = 130


def main() -> None:
    """Entry point of the ``dq-toolchain`` command."""
    guard_streams()
    code = run_command(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:  # a full disk behind "> file": what was printed is not all there
        drop_stdout()
        code = (
            code
            if code == 2
            else _fail(f"cannot write to stdout: {error.strerror or error}; choose a place with space")
        )
    sys.exit(code)


def run_command(arguments: list[str]) -> int:
    """Run one command line; every user's mistake becomes one line on stderr and exit code 2."""
    spin_briefly()
    quiet_imports()
    from dq_toolchain.toolchain.cli import app  # asks the streams whether they are terminals

    try:
        code = int(app(arguments or ["--help"], prog_name="dq-toolchain", standalone_mode=False) or 0)
    except ToolchainError as error:
        return _fail(str(error))
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        return _fail(
            f"the system refused{place}: {error.strerror or error}; check the path, its permissions and the free space"
        )
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        message = getattr(error, "format_message", None)  # click's usage errors, wherever typer keeps click
        if message is None:
            raise
        path = getattr(getattr(error, "ctx", None), "command_path", "dq-toolchain")
        return _fail(f"{_with_value(message().rstrip('.'), arguments)}; see `{path} --help`")
    if code == INTERRUPTED:  # typer turns a KeyboardInterrupt into this code
        print("interrupted; run the same command again to continue", file=sys.stderr)
    return code


def _with_value(message: str, arguments: list[str]) -> str:
    """typer's "Invalid value for '--steps': Input should be ..." with what was given, which typer leaves out."""
    invalid = re.match(r"Invalid value for '(--[\w-]+)': (.*)", message)
    if invalid is None:
        return message
    option, fault = invalid.groups()
    following = dict(itertools.pairwise(arguments)) | dict(
        a.split("=", 1) for a in arguments if a.startswith(f"{option}=")
    )
    return f"{option}: got {following.get(option)!r}, {fault[0].lower()}{fault[1:]}"


def _fail(text: str) -> int:
    print(f"error: {printable(text, LONGEST_ERROR)}", file=sys.stderr)
    return 2
