"""The alert rules in promtool, with their real durations."""

import re

import pytest
import yaml

import sync
from harness import ROOT, run, tool
from values import defaults, size

ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
TESTS = yaml.safe_load((ROOT / "tests/deploy/rules.test.yaml").read_text())
BY_NAME = {test["name"]: test for test in TESTS["tests"]}


def test_promtool_accepts_rules_and_configuration():
    assert (
        f"SUCCESS: {len(RULES)} rules found"
        in run(tool("promtool"), "check", "rules", ALERTS).stdout
    )
    run(
        tool("promtool"),
        "check",
        "config",
        "--syntax-only",
        ROOT / "deploy/prometheus/prometheus.yml",
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rule_fires_only_on_its_fault(rule, tmp_path):
    test = BY_NAME.get(rule["alert"])
    assert test, "rules.test.yaml has no test for this alert"
    cases = test["alert_rule_test"]
    assert {case["alertname"] for case in cases} == {rule["alert"]}
    assert any(case["exp_alerts"] for case in cases) and any(
        not case["exp_alerts"] for case in cases
    )
    # promtool compares all annotations. Keep the summary to avoid repeating the long ones.
    short = rule | {"annotations": {"summary": rule["annotations"]["summary"]}}
    (tmp_path / "alerts.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "sse-gateway", "rules": [short]}]})
    )
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(TESTS | {"tests": [test]}))
    done = run(tool("promtool"), "test", "rules", tmp_path / "test.yaml", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rule_has_required_annotations_and_job(rule):
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    # The base URL may have been set with sync.py.
    assert re.fullmatch(
        rf"(https?://\S+/)?docs/operations/runbook\.md#{rule['alert'].lower()}",
        rule["annotations"]["runbook_url"],
    )
    # Every selector has the job, because other jobs may export the same names.
    selectors = re.findall(r"\b(?:sse_\w+|up)\b(\{[^}]*\})?", rule["expr"])
    assert selectors and all('job="sse-gateway"' in selector for selector in selectors), rule[
        "expr"
    ]


def test_rules_contain_no_default_limits():
    """A default would be wrong after the setting is changed; limits are exported as metrics."""
    for setting in ("limits.max_connections", "limits.queue_bytes_total"):
        assert not [
            rule["alert"]
            for rule in RULES
            if re.search(rf"\b{size(defaults()[setting])}\b", rule["expr"])
        ]


def test_sync_sets_every_runbook_link():
    rules = sync.linked(ALERTS.read_text(), "https://wiki.example.com/sse-gateway")
    links = [
        rule["annotations"]["runbook_url"] for rule in yaml.safe_load(rules)["groups"][0]["rules"]
    ]
    assert links == [
        f"https://wiki.example.com/sse-gateway/docs/operations/runbook.md#{rule['alert'].lower()}"
        for rule in RULES
    ]
    # Setting another address and removing it restores the original.
    assert sync.linked(sync.linked(rules, "http://a/"), "") == sync.linked(ALERTS.read_text(), "")
    with pytest.raises(SystemExit):
        sync.linked(rules, "wiki.example.com")
    assert "sync.py https://wiki.example.com/sse-gateway/" in ALERTS.read_text().split("groups:")[0]
    runbook = (ROOT / "docs/operations/runbook.md").read_text()
    assert "sync.py https://wiki.example.com/sse-gateway/" in runbook
