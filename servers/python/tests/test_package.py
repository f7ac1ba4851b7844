"""The wheel in an empty project, with every example of the README; and the type hints."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
ID = r"\d+-\d+\.[0-9a-z]+"
FIRST = BLOCKS[0][1]
QUIET = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]


def pip(*args, cwd):
    subprocess.run([sys.executable, "-m", "pip", *args], cwd=cwd, check=True)


@pytest.fixture(scope="module")
def application(tmp_path_factory):
    """An empty project in which the wheel of the README is installed."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    pip("wheel", *QUIET, "--no-build-isolation", ".", cwd=source)
    (name,) = re.findall(r"pip install \S+/(\S+\.whl) redis\n", README)
    pip("install", *QUIET, "--target", folder / "packages", source / name, cwd=folder)
    metadata = folder / "packages/sse_gateway_backend-0.1.0.dist-info"
    assert "Requires-Dist: redis>=5.0\n" in (metadata / "METADATA").read_text()
    files = zipfile.ZipFile(source / name).namelist()
    assert {"sse_gateway/__init__.py", "sse_gateway/py.typed"} <= set(files)
    assert any(file.endswith("LICENSE") for file in files)
    assert not any("tests" in file for file in files)
    return folder


def environment(application):
    return {**os.environ, "PYTHONPATH": str(application / "packages"), "PYTHONSAFEPATH": "1"}


def local(code):
    port = os.environ["SSE_TEST_CLUSTER"].split(",")[0].split(":")[1]
    code = code.replace("redis://127.0.0.1:6379", os.environ["SSE_TEST_REDIS"])
    return code.replace("port=7000", f"port={port}").replace('unseen="30s"', 'unseen="1s"')


def run(application, code):
    program = [sys.executable, "-c", local(code)]
    env = environment(application)
    return subprocess.run(
        program, cwd=application, env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def test_readme_runs(application, listen):
    examples = [code for language, code in BLOCKS if language == "python"]
    assert examples[0] == FIRST
    ticket, event_id = run(application, FIRST).split()
    assert re.fullmatch(ID, event_id)
    stream = listen(os.environ["SSE_TEST_GATEWAY"], ticket)
    assert stream.connected["topics"] == ["news", "team-*"]
    stream.response.close()
    rest = {
        "asyncio.run": ("", ID),
        "def application": ("print(application({}, lambda *_: None))", "ticket"),
        "unseen=": ("", ""),
        "error.retriable": ("", "too-large False"),
        "RedisCluster(": ("", ""),
    }
    for example in examples[1:]:
        found = [text for text in rest if text in example]
        if not found:
            continue
        end, expected = rest.pop(found[0])
        output = run(application, f"{FIRST}\n{example}\n{end}")
        assert re.search(expected, output)
    assert rest == {}


def test_worker_of_the_readme(application):
    run(application, FIRST + next(code for _, code in BLOCKS if "unseen=" in code))
    (worker,) = [code for _, code in BLOCKS if "sse.undelivered" in code]
    child = subprocess.Popen(
        [sys.executable, "-c", local(FIRST + worker)],
        cwd=application,
        env=environment(application),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert any("email user:42:events shipped" in line for line in child.stdout)
    finally:
        child.kill()
        child.communicate()


def test_every_block_is_known():
    assert sorted(language for language, _ in BLOCKS) == ["python"] * 7 + ["sh"]


def test_types():
    paths = ["sse_gateway", "tests/uses.py"]
    cache = ROOT.parent.parent / ".cache/mypy"
    program = [sys.executable, "-m", "mypy", "--cache-dir", cache, *paths]
    done = subprocess.run(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
