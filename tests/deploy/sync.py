"""Writes k8s/components/prometheus-rule/prometheusrule.yaml from deploy/prometheus/alerts.yaml.

kustomize cannot put a file of rules into a resource; so there is a copy, and test_kustomize.py checks that it is one.
Run it after a change of the rules: python3 tests/deploy/sync.py
With an address it makes the alerts link to the runbook there, in both: python3 tests/deploy/sync.py https://wiki.example.com/sse-gateway/
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "deploy/prometheus/alerts.yaml"
COPY = ROOT / "k8s/components/prometheus-rule/prometheusrule.yaml"

HEAD = """\
# Written by tests/deploy/sync.py from deploy/prometheus/alerts.yaml. Change that file, and run it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sse-gateway
  labels:
    app.kubernetes.io/name: sse-gateway
spec:
"""


def copy() -> str:
    """The text of the copy: the rules, comments and all, two columns further in."""
    rules = SOURCE.read_text()
    rules = rules[rules.index("groups:\n") :]
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in rules.splitlines(keepends=True))


def linked(rules: str, address: str) -> str:
    """The rules with links to the runbook below this address, whatever they had before; an empty one gives the path in the repository."""
    if address and not re.fullmatch(r"https?://[^\s#]+", address):
        sys.exit(f"{address!r} is no address; give one such as https://wiki.example.com/sse-gateway/, below which docs/operations/runbook.md can be read")
    return re.sub(r"(runbook_url: )\S*?(docs/operations/runbook\.md#)", lambda m: m[1] + (address.rstrip("/") + "/" if address else "") + m[2], rules)


if __name__ == "__main__":
    for address in sys.argv[1:]:
        SOURCE.write_text(linked(SOURCE.read_text(), address))
    COPY.write_text(copy())
