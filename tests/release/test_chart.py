"""The chart of a release."""

import platform

import pytest
import yaml

from harness import run
from helm import NAMESPACE, SETS, program, render


@pytest.mark.skipif(platform.machine() != "x86_64", reason=".ci/helm has Helm for x86_64 only")
def test_chart_renders_what_the_checkout_does(dist, version):
    archive = dist / f"sse-gateway-{version}.tgz"
    for values in SETS.values():
        rendered = run(
            program(), "template", "sse-gateway", archive, "--namespace", NAMESPACE,
            "--values", "-", input=yaml.safe_dump(values),
        )
        assert [o for o in yaml.safe_load_all(rendered.stdout) if o] == render(values)
