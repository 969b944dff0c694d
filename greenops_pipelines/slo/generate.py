"""SLO files in, rule files out, the way `sloth generate` and `sloth validate` go about it. Not here: arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from greenops_pipelines import __version__
from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import durations, load, output, rules, validate, windows
from greenops_pipelines.slo.windows import Windows

DEFAULT_VERSION = f"greenops-{__version__}"


@dataclass(frozen=True)
class Job:
    """What Sloth's flags say: the period of SLOs that name none, the windows, and the compiler's options."""

    period: timedelta = timedelta(days=30)
    catalogue: Mapping[timedelta, Windows] = field(default_factory=lambda: windows.DEFAULT)
    options: rules.Options = field(default_factory=lambda: rules.Options(version=DEFAULT_VERSION))
    allow_objective_100: bool = False

    def __post_init__(self) -> None:
        if self.period not in self.catalogue:
            known = ", ".join(map(durations.text, sorted(self.catalogue))) or "none"
            raise BadInput(
                f"--default-slo-period: found {durations.text(self.period)}, allowed: a period with alert windows "
                f"({known}); --slo-period-windows-path names others"
            )


def generated(path: Path, job: Job) -> str:
    """The rules of all documents of one file, each with its header. `BadInput` for anything wrong."""
    documents = load.documents(load.text_of(path), str(path))
    if not documents:
        raise BadInput(f"{path}: found an empty file, allowed: at least one SLO document")
    return "".join(_document(document, job) for document in documents)


def _document(document: load.Document, job: Job) -> str:
    group = load.group(document, job.period)
    validate.check(group, document.place, allow_objective_100=job.allow_objective_100)
    options = replace(job.options, spec=group.spec, mode=group.mode)
    try:
        groups = rules.compile_group(group, job.catalogue, options)
        if group.kubernetes:
            return output.kubernetes(groups, group.kubernetes, options.version)
        return output.prometheus(groups, options.version)
    except BadInput as error:
        raise BadInput(f"{document.place}: {error}") from None


def discovered(root: Path, include: str | None, exclude: str | None) -> list[Path]:
    """The YAML files below `root` (or `root` itself), in order; `exclude` has preference. `BadInput` for none."""
    wanted, unwanted = _pattern("--fs-include", include), _pattern("--fs-exclude", exclude)
    if not root.exists():
        raise BadInput(f"{root}: found nothing there, allowed: a file or a folder of SLO files")
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    found = [
        path
        for path in files
        if path.suffix.lower() in (".yml", ".yaml")
        and not (unwanted and unwanted.search(str(path)))
        and (wanted is None or wanted.search(str(path)))
    ]
    if not found:
        raise BadInput(f"{root}: found no SLO file, allowed: at least one .yaml or .yml that the filters leave")
    return found


def _pattern(option: str, text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise BadInput(f"{option}: found {text!r}, allowed: a regular expression ({error})") from None


def faults(paths: Sequence[Path], job: Job, *, ignore_duplicates: bool = False) -> Iterator[tuple[Path, list[str]]]:
    """Each file with everything wrong in it. The same SLO in two documents is a fault of the later one."""
    known: dict[str, str] = {}
    for path in paths:
        try:
            documents = load.documents(load.text_of(path), str(path))
            found = [] if documents else [f"{path}: found an empty file, allowed: at least one SLO document"]
        except BadInput as error:
            documents, found = [], [str(error)]
        for document in documents:
            try:
                group = load.group(document, job.period)
                wrong = validate.faults(group, document.place, allow_objective_100=job.allow_objective_100)
                found += wrong
                if not wrong:
                    _document(document, job)
            except BadInput as error:
                found += str(error).split("\n")
                continue
            for slo in group.slos:
                if slo.id in known and not ignore_duplicates:
                    found.append(
                        f"{document.place}: {slo.name}: name: found {slo.id}, which stands in {known[slo.id]} too"
                    )
                known.setdefault(slo.id, document.place)
        yield path, list(dict.fromkeys(found))


def write(path: Path, text: str) -> None:
    """The file, whole or as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: not written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
