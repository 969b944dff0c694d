"""The commands that a runbook may tell people to type: programs, their subcommands, and the options of each.

    faults("kubectl get pods --namespce production")
    ["kubectl get: found the option --namespce, allowed: ..."]

A block of shell is read as far as a runbook goes: pipes, lists, assignments, `$(...)`. Not here: whether it parses as
shell (`runbook_checks.py` asks bash), and what a command would do.

Sources: kubectl 1.20 and later, `kubectl <command> --help`; Argo Rollouts 1.8, docs/generated/kubectl-argo-rollouts; Loki 3,
docs/sources/query/logcli; Prometheus 2.42, docs/command-line/promtool.md; Alertmanager 0.25, `amtool --help`.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator, Mapping

_KUBECTL = frozenset({"-n", "--namespace", "--context"})
_SELECTED = _KUBECTL | {"-l", "--selector"}
_SHOWN = _SELECTED | {"-o", "--output"}
_AMTOOL = frozenset({"-o", "--output", "--alertmanager.url"})
_LOGCLI = frozenset({"--since", "--from", "--to", "--limit", "-o", "--output", "--addr", "-q", "--quiet", "--forward"})

OPTIONS: Mapping[str, frozenset[str]] = {
    "kubectl get": _SHOWN | {"--sort-by", "-w", "--watch", "--show-labels"},
    "kubectl describe": _SELECTED,
    "kubectl events": _KUBECTL | {"--for", "--types", "-w", "--watch", "-o", "--output"},
    "kubectl logs": _SELECTED
    | {"--since", "--tail", "--prefix", "-c", "--container", "--all-containers", "-p", "--previous"},
    "kubectl top pod": _SELECTED,
    "kubectl port-forward": _KUBECTL,
    "kubectl argo rollouts get rollout": _KUBECTL | {"-w", "--watch", "--no-color"},
    "kubectl argo rollouts list rollouts": _KUBECTL | {"-w", "--watch", "--name"},
    "kubectl argo rollouts abort": _KUBECTL,
    "kubectl argo rollouts undo": _KUBECTL | {"--to-revision"},
    "kubectl argo rollouts retry rollout": _KUBECTL,
    "kubectl argo rollouts status": _KUBECTL | {"--timeout", "-w", "--watch"},
    "logcli query": _LOGCLI,
    "logcli instant-query": frozenset({"--now", "--limit", "-o", "--output", "--addr", "-q", "--quiet"}),
    "promtool query instant": frozenset({"--time"}),
    "promtool query range": frozenset({"--start", "--end", "--step"}),
    "amtool alert query": _AMTOOL | {"-a", "--active", "-s", "--silenced"},
    "amtool silence add": _AMTOOL | {"-d", "--duration", "-a", "--author", "-c", "--comment"},
    "amtool silence query": _AMTOOL,
    "amtool silence expire": _AMTOOL,
    "curl": frozenset({"-s", "-S", "-f", "-sS", "-fsS", "--fail", "-G", "--get", "--data-urlencode", "--max-time"}),
    "greenops sql": frozenset({"--json", "--csv"}),
    "greenops status": frozenset({"--json"}),
    "greenops slo certify": frozenset({"--profile", "--objective", "--json"}),
    "greenops slo budget": frozenset({"--service", "--period", "--json"}),
    "greenops slo incidents": frozenset({"--open", "--limit", "--json"}),
    "greenops slo canary": frozenset({"--json"}),
    "greenops slo drill": frozenset({"--scenario", "--service", "--variant", "--speed", "--dry-run", "--json"}),
    "greenops slo drills": frozenset({"--limit", "--json"}),
}
_LONGEST = max(len(name.split()) for name in OPTIONS)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_SUBSTITUTION = re.compile(r"\$\(((?:[^()]|\([^()]*\))*)\)")
_BETWEEN = "|&;\n"


def faults(block: str) -> list[str]:
    """One line for each command of a block of shell that does not exist so; none for a good block."""
    try:
        return [fault for words in split(block) for fault in _command(words)]
    except ValueError as error:
        return [f"found no shell: {error}"]


@functools.lru_cache(maxsize=1024)
def split(block: str) -> tuple[tuple[str, ...], ...]:
    """The commands of a block, as words, those inside `$(...)` first. `ValueError` where a quote does not end."""
    inner = (command for match in _SUBSTITUTION.finditer(block) for command in split(match[1]))
    return (*inner, *_outer(block))


def _outer(block: str) -> Iterator[tuple[str, ...]]:
    text = _SUBSTITUTION.sub("SUBSTITUTED", block).replace("\\\n", " ")
    reader = shlex.shlex(text, posix=True, punctuation_chars=_BETWEEN)
    reader.whitespace, reader.whitespace_split, reader.commenters = " \t\r", True, ""
    words: list[str] = []
    is_comment = False
    for token in reader:
        if set(token) <= set(_BETWEEN):
            if words:
                yield tuple(words)
            words, is_comment = [], is_comment and "\n" not in token
        elif is_comment or (token.startswith("#") and not words):
            is_comment = True
        elif words or not _ASSIGNMENT.fullmatch(token):
            words.append(token)
    if words:
        yield tuple(words)


def _command(words: tuple[str, ...]) -> Iterator[str]:
    prefixes = (" ".join(words[:count]) for count in range(min(_LONGEST, len(words)), 0, -1))
    known = next((prefix for prefix in prefixes if prefix in OPTIONS), None)
    if known is None:
        programs = {name.split()[0] for name in OPTIONS}
        if words[0] in programs:
            allowed = sorted(name for name in OPTIONS if name.startswith(f"{words[0]} "))
            yield f"found {' '.join(words[:4])!r}, allowed: {', '.join(allowed)}"
        else:
            yield f"found the program {words[0]!r}, allowed: {', '.join(sorted(programs))}"
        return
    for word in words[len(known.split()) :]:
        if word == "--":
            return
        option = word.split("=")[0]
        if re.match(r"--?[A-Za-z]", word) and option not in OPTIONS[known]:
            yield f"{known}: found the option {option}, allowed: {', '.join(sorted(OPTIONS[known])) or 'none'}"
