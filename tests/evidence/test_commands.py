"""`greenops evidence`, as a person or a script runs it: exit codes, one line on stderr, JSON that parses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from greenops_pipelines.evidence.opening import Evidence
from tests.evidence.conftest import Specimens, filed, settings, unpacked


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli") / "home"


@pytest.fixture(scope="module")
def bundle(home: Path) -> str:
    return filed(Evidence(settings(home)))


def greenops(home: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from greenops_pipelines.cli import main; sys.argv[0] = 'greenops'; main()"
    env = {"PATH": os.environ["PATH"], "GREENOPS_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, "evidence", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=home.parent, check=False)


def test_verify_says_each_property_and_the_outcome(home: Path, bundle: str) -> None:
    done = greenops(home, "verify", bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert "passed  signature             ECDSA P-256 over SHA-256\n" in done.stdout
    assert done.stdout.endswith(f"{bundle}: verified\n")


def test_verify_as_json_is_one_document(home: Path, bundle: str) -> None:
    document = json.loads(greenops(home, "verify", bundle, "--json").stdout)
    assert document["verified"] is True
    assert document["verdict"] == "passed"
    states = {found["property"]: found["state"] for found in document["properties"]}
    assert (states["layout"], states["gpg"], states["timestamp"], states["clock"]) == (
        "passed",
        "absent",
        "absent",
        "passed",
    )


def test_a_stranger_verifies_a_folder_with_the_key_alone(home: Path, specimens: Specimens, tmp_path: Path) -> None:
    folder = unpacked(specimens.one, tmp_path)
    done = greenops(tmp_path / "nobody", "verify", folder, "--key", specimens.public_key)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "nobody").exists()
    without = greenops(tmp_path / "nobody", "verify", folder)
    assert without.returncode == 1
    assert without.stderr == (
        f"greenops: {specimens.one.id}: not verified: key: no key to trust was given; anyone could have made this bundle\n"
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("verify", "nowhere.tar"), "nowhere.tar: found nothing there"),
        (("verify", "20260101T000000Z-0000000000000000"), "found none of that name"),
        (("verify", "hello"), "bundle id: found 'hello'"),
        (("verify", "{key}", "--key", "/nowhere"), "--key /nowhere: No such file"),
        (("verify", "{key}", "--key", "{private}"), "found a private key"),
        (("verify", "{key}", "--checkpoints", "/nowhere"), "--checkpoints /nowhere: found no folder"),
        (("show", "20260101T000000Z-0000000000000000"), "found none of that name"),
    ],
)
def test_wrong_arguments_exit_with_2_and_one_line(home: Path, bundle: str, args: tuple[str, ...], said: str) -> None:
    keys = home / "keys"
    done = greenops(home, *(arg.format(key=keys / "evidence.pub", private=keys / "evidence.key") for arg in args))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("greenops: ")
    assert done.stderr.count("\n") == 1


def test_a_terminal_sees_no_escape_sequence_of_a_bundle(home: Path, bundle: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    tar = Evidence(settings(home)).archive.get(bundle)
    path.write_bytes(tar.replace(bundle.encode() + b"/manifest.json", bundle.encode() + b"/\x1b[2Jfest.json"))
    done = greenops(home, "verify", path)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout + done.stderr


def test_list_and_show(home: Path, bundle: str) -> None:
    listed = json.loads(greenops(home, "list", "--json").stdout)
    assert listed["filed"] == 1
    assert listed["bundles"] == [
        {"bundle": bundle, "state": "filed", "control": "J4.2", "subject": "drill 2026-11", "verdict": "passed"}
    ]
    assert f"{bundle}  filed   passed    J4.2  drill 2026-11\n1 filed, 0 queued\n" == greenops(home, "list").stdout
    shown = json.loads(greenops(home, "show", bundle, "--json").stdout)
    assert shown["predicate"]["figures"]["RPO seconds"] == 0.04
    assert "  RPO seconds: 0.04\n" in greenops(home, "show", bundle).stdout


def test_flush_and_audit(home: Path, bundle: str) -> None:
    assert greenops(home, "flush").returncode == 0
    audit = greenops(home, "audit", "--json")
    assert (audit.returncode, json.loads(audit.stdout)["whole"]) == (0, True)


def test_an_audit_without_a_log_is_fine_and_a_broken_one_exits_with_1(tmp_path: Path) -> None:
    home = tmp_path / "home"
    bundle = filed(Evidence(settings(home)))
    next((home / "evidence/store").rglob(f"{bundle}.tar")).unlink()
    done = greenops(home, "audit")
    assert done.returncode == 1
    assert done.stderr == f"greenops: the log is not whole: bundles: {bundle} is logged, and not in the store\n"
