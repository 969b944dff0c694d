"""Commands of runbooks: programs and options that exist, told by the programs themselves where they are at hand."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import typer

from greenops_pipelines.cli import app
from greenops_pipelines.observability import commands
from tests.slo.conftest import program


def test_a_block_is_split_into_commands() -> None:
    block = (
        "# find it\n"
        "HASH=$(kubectl get rollout shop -o jsonpath='{.x}')\n"
        "kubectl logs -l app=shop \\\n  --since=1h | curl -s x && kubectl get pods  # all of them | here\n"
        'promtool query instant http://p "sum(\n  up\n)"\n'
    )
    assert commands.split(block) == (
        ("kubectl", "get", "rollout", "shop", "-o", "jsonpath={.x}"),
        ("kubectl", "logs", "-l", "app=shop", "--since=1h"),
        ("curl", "-s", "x"),
        ("kubectl", "get", "pods", "#", "all", "of", "them"),
        ("here",),
        ("promtool", "query", "instant", "http://p", "sum(\n  up\n)"),
    )


@pytest.mark.parametrize(
    "block",
    [
        "kubectl argo rollouts get rollout shop -n production --watch",
        "kubectl events -n production --for=rollout/shop",
        "amtool silence add alertname=X --duration=1h --author=\"$USER\" --comment='-x is no option'",
        "logcli query '{a=\"b\"}' --since=1h --limit=200",
        "greenops slo drill --scenario errors-2 --service shop --dry-run",
        "kubectl port-forward service/prometheus 9090:9090 -n observability",
    ],
)
def test_good_commands_have_no_fault(block: str) -> None:
    assert commands.faults(block) == []


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("kubectl get pods --namespce production", "kubectl get: found the option --namespce"),
        ("kubectl -n production argo rollouts abort shop", "found 'kubectl -n production argo'"),
        ("kubectl argo rollouts rollback shop", "found 'kubectl argo rollouts rollback'"),
        ("kubectl argo rollouts abort shop --now", "kubectl argo rollouts abort: found the option --now"),
        ("kubectl delete pods --all", "found 'kubectl delete pods --all'"),
        ("helm rollback shop", "found the program 'helm'"),
        ("greenops sql 'select 1' --yaml", "greenops sql: found the option --yaml"),
        ("greenops slo certified", "found 'greenops slo certified'"),
        ("logcli query '{a=\"b\"}' --last=1h", "logcli query: found the option --last"),
        ("kubectl get pods | xargs kubectl delete", "found the program 'xargs'"),
        ("X=$(kubctl get pods)", "found the program 'kubctl'"),
        ("echo 'open", "found no shell"),
    ],
)
def test_a_fault_of_a_command_is_named(block: str, said: str) -> None:
    found = commands.faults(block)
    assert any(said in fault for fault in found), found


def test_greenops_commands_are_those_of_the_application() -> None:
    for name, options in commands.OPTIONS.items():
        words = name.split()
        if words[0] != "greenops":
            continue
        command: Any = typer.main.get_command(app)
        for word in words[1:]:
            command = command.commands[word]
        known = {option for parameter in command.params for option in parameter.opts}
        assert options <= known, name


@pytest.mark.real
def test_kubectl_options_are_those_of_kubectl() -> None:
    kubectl = program("kubectl", "Debian: kubernetes-client; or from Kubernetes")
    common = subprocess.run([kubectl, "options"], capture_output=True, text=True, check=True).stdout
    for name, options in commands.OPTIONS.items():
        words = name.split()
        if words[0] != "kubectl" or words[1] == "argo":
            continue
        said = subprocess.run([kubectl, *words[1:], "--help"], capture_output=True, text=True, check=False)
        if said.returncode != 0 or f"kubectl {' '.join(words[1:])}" not in said.stdout:
            # `events` is a command of its own since 1.26.
            assert name == "kubectl events"
            continue
        for option in options:
            assert f"{option}=" in said.stdout + common or f"{option}," in said.stdout + common, (name, option)


@pytest.mark.real
def test_promtool_options_are_those_of_promtool() -> None:
    promtool = program("promtool", "Debian: prometheus")
    for name in ("promtool query instant", "promtool query range"):
        said = subprocess.run([promtool, *name.split()[1:], "--help"], capture_output=True, text=True, check=False)
        for option in commands.OPTIONS[name]:
            assert f"{option}=" in said.stdout + said.stderr, (name, option)
