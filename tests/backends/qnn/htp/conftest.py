"""Without Qualcomm's wheel the tests that compile are skipped, and say why."""

from __future__ import annotations

import pytest

from dq_toolchain.backends.qnn.vendor import INSTALL_COMPILER, has_compiler


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = f"needs Qualcomm's compiler: {INSTALL_COMPILER}"
    for item in items:
        if item.get_closest_marker("qnn") is not None and not has_compiler():
            item.add_marker(pytest.mark.skip(reason=reason))
