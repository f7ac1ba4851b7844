"""Names and links in alert rules, dashboard, scalers and runbook refer to existing things."""

import json
import re

import pytest
import yaml

from harness import CLUSTER, ROOT, Gateway, Redis, Stream, eventually, run, ticket, tool
from values import defaults

RUNBOOK = (ROOT / "docs/operations/runbook.md").read_text()
RULES = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/sse-gateway.json").read_text())
TARGETS = [
    (panel["title"], target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
]


@pytest.fixture(scope="module")
def exported() -> dict[str, dict[str, set[str]]]:
    """Metrics of a gateway with an accepted and a refused client: name -> label -> values.

    Its Redis is a cluster of one node, because some metrics exist only on a cluster, and it reads
    an external source.
    """
    sources = {"sources__redis_streams": '[{"stream":"orders"}]'}
    with Redis(*CLUSTER) as redis:
        redis.cli("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        with Gateway(redis.url, **sources) as gateway, Stream(gateway.public) as stream:
            stream.until("sse.connected")
            assert Stream(gateway.public, token=ticket(secret="another secret")).status == 401
            text = gateway.get("/metrics")[1]
    series: dict[str, dict[str, set[str]]] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.M):
        of = series.setdefault(name, {})
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
            of.setdefault(label, set()).add(value)
    return series


def check(expression: str, exported):
    """Checks that each metric is exported with the selected labels and label values."""
    names = set(re.findall(r"\b((?:sse|container|process|kube|node|go)_\w+)", expression))
    unknown = names - set(exported)
    assert not unknown, f"{unknown} in {expression}"
    for name, selector in re.findall(r"\b(sse_\w+)\{([^}]*)\}", expression):
        for label, operator, value in re.findall(r'(\w+)\s*(=~|=|!=|!~)\s*"([^"]*)"', selector):
            if label in ("job", "namespace", "instance", "pod"):
                continue
            assert label in exported[name], f"{name} has no label {label}"
            if label != "code":  # a code is exported after its first occurrence
                wanted = value.split("|") if "~" in operator else [value]
                assert set(wanted) <= exported[name][label], (
                    f"{name}: {label} is never one of {wanted}"
                )
    return names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rule_uses_exported_metrics(rule, exported):
    assert check(rule["expr"], exported) or "up{" in rule["expr"]


@pytest.mark.parametrize(
    "title,expression", TARGETS, ids=[f"{title}-{n}" for n, (title, _) in enumerate(TARGETS)]
)
def test_panel_uses_exported_metrics(title, expression, exported):
    assert check(expression, exported)
    assert 'job="sse-gateway"' in expression and 'namespace=~"$namespace"' in expression


def test_dashboard_shows_every_metric(exported):
    shown = set().union(*(re.findall(r"\bsse_\w+", expression) for _, expression in TARGETS))
    own = {name for name in exported if name.startswith("sse_")}
    left_out = own - shown - {n for n in exported if n.endswith(("_sum", "_count"))}
    assert left_out == set(), "metrics without a panel"


def test_dashboard_counts_each_event_once(tmp_path):
    """Two instances relay the same 10 broadcasts per second, and 3 and 4 user events: 17."""
    [expression] = [expression for title, expression in TARGETS if title == "Events per second"]
    expression = (
        expression.replace("$namespace", ".*")
        .replace("$instance", ".*")
        .replace("$__rate_interval", "1m")
    )
    series = lambda instance, kind, rate: {
        "series": f'sse_events_relayed_total{{job="sse-gateway", namespace="shop", '
        f'instance="{instance}", kind="{kind}"}}',
        "values": f"0+{15 * rate}x20",
    }
    tests = [
        {
            "interval": "15s",
            "input_series": [
                series("a", "broadcast", 10),
                series("b", "broadcast", 10),
                series("a", "user", 3),
                series("b", "user", 4),
            ],
            "promql_expr_test": [
                {
                    "expr": expression,
                    "eval_time": "4m",
                    "exp_samples": [{"labels": "{}", "value": 17}],
                }
            ],
        }
    ]
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": tests}))
    done = run(tool("promtool"), "test", "rules", tmp_path / "test.yaml", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rate_panels_use_neutral_units():
    """Grafana's other rate units add words such as "requests", which would be wrong here."""
    units = {
        p["fieldConfig"]["defaults"].get("unit")
        for p in DASHBOARD["panels"]
        if p["type"] != "row" and "per second" in p["title"]
    }
    assert units == {"cps", "Bps"}


def test_dashboard_layout_and_variables_are_valid():
    panels = DASHBOARD["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    variables = {v["name"] for v in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"} <= variables
    taken = set()
    for p in panels:
        grid = p["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24 and not cells & taken, p["title"]
        taken |= cells
        if p["type"] != "row":
            assert (
                p["datasource"] == {"type": "prometheus", "uid": "${datasource}"} and p["targets"]
            )


@pytest.mark.parametrize(
    "file",
    [
        "k8s/components/keda/scaledobject.yaml",
        "k8s/base/horizontalpodautoscaler.yaml",
        "k8s/overlays/production/horizontalpodautoscaler.yaml",
    ],
)
def test_scaler_uses_exported_metrics(file, exported):
    assert check(re.sub(r"^\s*#.*$", "", (ROOT / file).read_text(), flags=re.M), exported)


def anchors(text: str) -> set[str]:
    """The anchors of the headings of a Markdown page."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_runbook_describes_exactly_the_alerts():
    for rule in RULES:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("docs/operations/runbook.md"), rule["alert"]
        assert anchor in anchors(RUNBOOK), rule["alert"]
    # The runbook describes no removed alerts.
    assert {h for h in re.findall(r"^### (SseGateway\w+)$", RUNBOOK, re.M)} == {
        rule["alert"] for rule in RULES
    }


def test_alerts_page_lists_every_alert_with_its_severity():
    page = (ROOT / "docs/operations/alerts.md").read_text()
    listed = re.findall(r"^\| \[(\w+)\]\(runbook\.md#(\w+)\) \| (\w+) \|", page, re.M)
    assert listed == [
        (rule["alert"], rule["alert"].lower(), rule["labels"]["severity"]) for rule in RULES
    ]


def test_runbook_describes_every_complaint():
    assert {
        "events-come-in-bursts",
        "an-event-did-not-arrive",
        "users-stop-getting-events-after-an-hour",
        "reconnect-storm-after-a-deploy",
        "redis-memory-grows",
        "gap-events-after-a-failover",
        "foreign-data-in-the-gateways-keys",
    } <= anchors(RUNBOOK)


def test_runbook_and_deployment_page_list_every_readyz_reason():
    code = (ROOT / "src/admission/readiness.rs").read_text()
    reasons = set(re.findall(r'Some\("([a-z-]+)"\)', code[code.index("fn unready") :]))
    assert reasons >= {"redis-away", "no-recorder", "keys-away", "full", "draining"}
    table = RUNBOOK[RUNBOOK.index("`/readyz` names its reason") : RUNBOOK.index("## Alerts")]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.M)) == reasons
    page = (ROOT / "docs/operations/deployment.md").read_text()
    admin = page[page.index("## Admin listener") : page.index("## Shutdown")]
    assert reasons <= set(re.findall(r"`([a-z-]+)`", admin))


def test_kubectl_logs_with_selectors_set_tail():
    for line in re.findall(r"`(kubectl logs -l [^`]*)`", RUNBOOK):
        assert "--tail=" in line, line


def test_runbook_links_are_valid():
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK):
        path, _, anchor = target.partition("#")
        file = (ROOT / "docs/operations" / (path or "runbook.md")).resolve()
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


def test_runbook_names_existing_metrics_and_settings(exported):
    for code in re.findall(r"`([^`]+)`", RUNBOOK):
        if re.search(r"\bsse_(?!publish|gateway)", code):
            check(code, exported)
        sections = {key.split(".")[0] for key in defaults()}
        for key in re.findall(r"^([a-z]+\.[a-z_.]+)(?: |$)", code):
            if key.split(".")[0] in sections and not key.endswith((".toml", ".conf", ".yaml")):
                assert key in defaults(), f"unknown setting {key}"


def test_redis_commands_in_the_runbook_work():
    """Runs them on the Redis of a gateway that has processed events."""
    lines = list(
        dict.fromkeys(
            re.findall(
                r"`(?:redis-cli )((?:XREVRANGE|GET|PTTL|DEL|MEMORY|TIME|info|slowlog)[^`|]*)`",
                RUNBOOK,
            )
        )
    )
    assert len(lines) >= 6
    with Redis() as redis, Gateway(redis.url) as gateway:
        eventually("a recorder", lambda: gateway.metric('sse_recorder_role{role="writer"}') == 1)
        redis.cli("FCALL", "sse_publish", 1, "broadcast:news", "news", "{}")
        redis.cli("PUBLISH", "broadcast:news", '{"type":"sse.mine","payload":1}')
        eventually(
            "one is refused",
            lambda: gateway.metric('sse_rejected_total{reason="reserved-type"}') == 1,
        )
        for line in lines:
            answer = redis.cli(*line.split()).stdout.strip()
            assert not answer.startswith("ERR"), f"{line}: {answer}"
            if line.startswith("XREVRANGE"):
                assert "reason" in answer, f"{line}: {answer!r}"
            if line.startswith("GET sse:lease:recorder:{broadcast}"):
                assert answer
