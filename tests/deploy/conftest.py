"""Shared fixtures. Lists the skipped tests in the file $SSE_SKIPPED, which `make test` prints."""

import os
from pathlib import Path

from helm import chart  # noqa: F401
from kubernetes_page import clone, overlay  # noqa: F401
from kustomize import built  # noqa: F401


def pytest_terminal_summary(terminalreporter):
    file = os.environ.get("SSE_SKIPPED")
    tests_by_reason: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        tests_by_reason.setdefault(reason, []).append(report.nodeid)
    if not file or not tests_by_reason:
        return
    lines = []
    for reason, tests in tests_by_reason.items():
        lines += [f"test-deploy, {reason}:", *(f"  {test}" for test in tests)]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("\n".join(lines) + "\n")
