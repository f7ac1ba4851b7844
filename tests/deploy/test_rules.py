"""The alerts by promtool: they can be read, and each fires when it should and is quiet when it should, in its real durations."""

import re

import pytest
import yaml

import sync
from harness import ROOT, defaults, run, size, tool

ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
TESTS = yaml.safe_load((ROOT / "tests/deploy/rules.test.yaml").read_text())
BY_NAME = {test["name"]: test for test in TESTS["tests"]}


def test_promtool_reads_rules_and_configuration():
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
def test_rule_fires_and_is_quiet(rule, tmp_path):
    test = BY_NAME.get(rule["alert"])
    assert test, "no test in rules.test.yaml"
    cases = test["alert_rule_test"]
    assert {case["alertname"] for case in cases} == {rule["alert"]}
    assert any(case["exp_alerts"] for case in cases) and any(
        not case["exp_alerts"] for case in cases
    )
    # promtool compares all annotations; the long ones would only be said twice.
    short = rule | {"annotations": {"summary": rule["annotations"]["summary"]}}
    (tmp_path / "alerts.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "sse-gateway", "rules": [short]}]})
    )
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(TESTS | {"tests": [test]}))
    done = run(tool("promtool"), "test", "rules", tmp_path / "test.yaml", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rule_says_what_it_must(rule):
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    # With an address before it, where somebody has set one (sync.py).
    assert re.fullmatch(
        rf"(https?://\S+/)?docs/runbook\.md#{rule['alert'].lower()}",
        rule["annotations"]["runbook_url"],
    )
    # All of them ask for this job only; another one may have series of these names.
    selectors = re.findall(r"\b(?:sse_\w+|up)\b(\{[^}]*\})?", rule["expr"])
    assert selectors and all('job="sse-gateway"' in selector for selector in selectors), rule[
        "expr"
    ]


def test_rules_ask_the_gateway_for_its_limits():
    """A number of a setting in a rule would be wrong for whoever sets it."""
    for setting in ("limits.max_connections", "limits.queue_bytes_total"):
        assert not [
            rule["alert"]
            for rule in RULES
            if re.search(rf"\b{size(defaults()[setting])}\b", rule["expr"])
        ]


def test_links_to_the_runbook_are_set_in_one_place():
    rules = sync.linked(ALERTS.read_text(), "https://wiki.example.com/sse-gateway")
    links = [
        rule["annotations"]["runbook_url"] for rule in yaml.safe_load(rules)["groups"][0]["rules"]
    ]
    assert links == [
        f"https://wiki.example.com/sse-gateway/docs/runbook.md#{rule['alert'].lower()}"
        for rule in RULES
    ]
    # Again with another address, and back.
    assert sync.linked(sync.linked(rules, "http://a/"), "") == sync.linked(ALERTS.read_text(), "")
    with pytest.raises(SystemExit):
        sync.linked(rules, "wiki.example.com")
    assert "sync.py https://wiki.example.com/sse-gateway/" in ALERTS.read_text().split("groups:")[0]
    assert "sync.py https://wiki.example.com/sse-gateway/" in (ROOT / "docs/runbook.md").read_text()
