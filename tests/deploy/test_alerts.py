"""Each alert fires on its fault: Prometheus scrapes real gateways while the faults are caused.

To save time, `for` is shortened to 1 s (NoStandby: 15 s) and windows to 20 s. test_rules.py tests
the real durations with promtool. Each fault has its own Redis and gateways, named after the alert.
"""

import contextlib

import pytest
import yaml

from faults import FAULTS, HEALTHY, Installation, over_scrapes, turned_away
from harness import eventually
from prometheus import ALERTS, Prometheus

NAMES = [rule["alert"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]]
# Watermarks, latencies and timeouts of scrapes depend on the load of this machine; test_rules.py
# covers these alerts.
LOAD = ("SseGatewayAlone", "SseGatewayDown", "SseGatewaySlow", "SseGatewayWatermarksLate")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    with Prometheus(tmp_path_factory.mktemp("prometheus")) as p:
        yield p


@pytest.fixture(scope="module")
def faults(prometheus):
    """All installations before their faults. Prometheus needs 5 s to discover targets."""
    with contextlib.ExitStack() as stack:
        prepared = {
            name: fault(Installation(stack, name, prometheus))
            for name, fault in (FAULTS | HEALTHY | {"turned-away": turned_away}).items()
        }
        prometheus.watch({name: list(next(fault)) for name, fault in prepared.items()})
        yield prepared


def test_every_alert_has_a_fault():
    assert set(NAMES) == set(FAULTS) | {"SseGatewayAbsent"}


@pytest.mark.parametrize("alert", [name for name in NAMES if name in FAULTS])
def test_alert_fires_on_its_fault(alert, prometheus, faults):
    if alert in LOAD:
        # It may fire for a moment.
        eventually(f"{alert} does not fire", lambda: prometheus.firing(alert, alert) is None)
    elif alert != "SseGatewayTwoRecorders":
        assert prometheus.firing(alert, alert) is None, "fires before the fault"
    next(faults[alert], None)
    fired = eventually(f"{alert} fires", lambda: prometheus.firing(alert, alert))
    for text in fired["annotations"].values():
        assert text and "<no value>" not in text and "{{" not in text and "error" not in text, fired


def test_full_alert_fires_after_a_brief_peak(prometheus, faults):
    assert prometheus.firing("SseGatewayFull", "turned-away") is None
    next(faults["turned-away"], None)
    eventually("SseGatewayFull fires", lambda: prometheus.firing("SseGatewayFull", "turned-away"))


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_installation_fires_no_alert(name, prometheus, faults):
    next(faults[name], None)
    # Wait until the effects were scraped and evaluated.
    over_scrapes(lambda: None)
    fired = prometheus.query(
        f'count by (alertname) (max_over_time(ALERTS{{namespace="{name}", alertstate="firing", '
        f'alertname!~"{"|".join(LOAD)}"}}[1h]))'
    )
    assert fired == []


def test_absent_alert_fires_without_targets(prometheus, faults):
    assert prometheus.firing("SseGatewayAbsent") is None
    prometheus.targets.clear()
    prometheus.watch({})
    assert eventually("SseGatewayAbsent fires", lambda: prometheus.firing("SseGatewayAbsent"))
