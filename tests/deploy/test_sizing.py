"""The figures in docs/operations/sizing.md match its formulas and a real Redis."""

import re

import pytest

from harness import ROOT, Gateway, Redis

PAGE = (ROOT / "docs/operations/sizing.md").read_text()


def number(pattern: str) -> float:
    [found] = re.findall(pattern, PAGE)
    return float(found)


def test_redis_cpu_example_matches_the_formula():
    r_pub = number(r"(?m)^\| `r_pub` \|[^|]*\| ([\d.]+) ")
    r_listen = (
        number(r"(?m)^\| +\| durable broadcast, one gateway listens, one at a time \| ([\d.]+) ")
        - r_pub
    )
    r_renew, r_resume = (
        number(rf"(?m)^\| `{name}` \|[^|]*\| ([\d.]+) ") for name in ("r_renew", "r_resume")
    )
    [(alone, each)] = re.findall(r"\+ ([\d.]+) ms \+ instances x ([\d.]+) ms ", PAGE)
    assert f"Redis takes {alone} ms a second by itself and {each} more for each gateway" in PAGE
    [instances] = re.findall(r"(?m)^\| instances \| (\d+) \| (\d+) \| (\d+) \|$", PAGE)
    [shares] = re.findall(
        r"(?m)^\| Redis CPU" + r" \| ([\d.]+) % of a core" * 3 + r" \|$",
        PAGE,
    )
    for n, i, share in zip((1e4, 1e5, 1e6), map(int, instances), map(float, shares)):
        p_u, p_b, resumes = n * 2.5 / 3600, 0.1, n / 3600
        us = (
            p_u * (1.1 * r_pub + r_listen)
            + p_b * (r_pub + i * r_listen)
            + resumes * r_resume
            + n / 40 * r_renew
            + 1000 * (float(alone) + i * float(each))
        )
        assert share == pytest.approx(us / 10_000, abs=0.06), n


def test_idle_cost_matches_the_measurements():
    [(alone, each)] = re.findall(r"\+ ([\d.]+) ms \+ instances x ([\d.]+) ms ", PAGE)
    [measured] = re.findall(
        r"measured ([\d.]+), ([\d.]+), ([\d.]+) and ([\d.]+) ms a second "
        r"with 1, 2, 6 and 12 gateways",
        PAGE,
    )
    for gateways, ms in zip((1, 2, 6, 12), map(float, measured)):
        assert float(alone) + gateways * float(each) == pytest.approx(ms, abs=0.6)


@pytest.mark.parametrize("node,usage_kb,grows_kb", [(4096, 4.7, 4.4), (1024, 1.7, 1.3)])
def test_log_memory_matches_the_documentation(node, usage_kb, grows_kb):
    """Each page names the measure: MEMORY USAGE of a log, or the growth of used_memory."""
    used = lambda: int(
        re.search(r"^used_memory:(\d+)", redis.cli("INFO", "memory").stdout, re.M)[1]
    )
    with Redis("--stream-node-max-bytes", str(node)) as redis, Gateway(redis.url):
        before = used()
        redis.batch(f"FCALL sse_publish 1 user:{n}:events news {'x' * 200}" for n in range(3000))
        grown = (used() - before) / 3000
        usage = int(redis.cli("MEMORY", "USAGE", "sse:log:{user:7:events}").stdout)
    assert usage / 1000 == pytest.approx(usage_kb, rel=0.1) and grown / 1000 == pytest.approx(
        grows_kb, rel=0.1
    )
    conf, runbook = (
        (ROOT / path).read_text()
        for path in ("deploy/redis/redis.conf", "docs/operations/runbook.md")
    )
    for text in (re.sub(r"\n# ", " ", conf), runbook, PAGE):
        for measure, kb in ((r"MEMORY\s+USAGE", usage_kb), ("used_memory", grows_kb)):
            assert re.search(rf"{measure}.{{0,150}}\b{kb}|\b{kb}.{{0,40}}{measure}", text, re.S), (
                f"{kb} KB by which measure? {text}"
            )
