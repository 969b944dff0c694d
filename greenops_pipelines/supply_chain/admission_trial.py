"""ops/images.yaml -> the admission policies, and the word of the rendered text on every case of the matrix.

Not here: the cases (`admission_cases.py`), and what the text says (`admission.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa

from greenops_pipelines.evidence.signing import Signer
from greenops_pipelines.lake.supply_tables import ADMISSION_CASES
from greenops_pipelines.process import docker_registry
from greenops_pipelines.supply_chain import admission, admission_cases, cel_policy, provenance
from greenops_pipelines.supply_chain.admission import Builder, Rules
from greenops_pipelines.supply_chain.admission_cases import Stage, Tried
from greenops_pipelines.supply_chain.admission_world import RepositoryWorld
from greenops_pipelines.supply_chain.declared import Images
from greenops_pipelines.supply_chain.layout import Layout
from greenops_pipelines.supply_chain.oci import Repository
from greenops_pipelines.supply_chain.registry import Registry

NAME = "greenops-images"
_REPOSITORY = "greenops-admission"
_ELSEWHERE = "other.example/a/b:1"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """Every case with what became of it, and over which bytes."""

    tried: tuple[Tried, ...]
    over: str


def rules(declared: Images, former_keys: Sequence[str] = ()) -> Rules:
    """What is declared, in the words of the policy. Without a builder nothing could be admitted: then it is our own."""
    builders = tuple(Builder(each.id, each.key.pem.decode() if each.key else "") for each in declared.builders)
    asked = declared.admission
    return Rules(
        name=NAME,
        images=asked.images,
        builders=builders or (Builder(provenance.LOCAL_BUILDER),),
        former_keys=tuple(former_keys),
        excluded_namespaces=asked.excluded,
        scan_days=declared.gate.scan_days,
        severities=asked.severities,
        mode=asked.mode,
    )


def try_out(asked: Rules, signer: Signer, scratch: Path, now: datetime, progress: Progress) -> Trial:
    """Tries the rendered policy on every case. Its text is the one that is rendered, but where no builder signs with our key:
    then the trial's has our own builder besides, because nobody here can sign for the others.
    """
    if not any(not each.key_pem for each in asked.builders):
        asked = Rules(**{**asked.__dict__, "builders": (*asked.builders, Builder(provenance.LOCAL_BUILDER))})
    builder = next(each.id for each in asked.builders if not each.key_pem)
    text = admission.render(asked, signer.public.pem.decode())[admission.POLICY]
    place = _place(asked.images[0])
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="admission-", dir=scratch) as folder, _repository(Path(folder)) as opened:
        repository, over = opened
        elsewhere = "" if any(fnmatchcase(_ELSEWHERE, glob) for glob in asked.images) else _ELSEWHERE
        stage = Stage(repository, place, signer, builder, now, asked.scan_days, asked.severities[-1], elsewhere)
        tried = []
        for case in stage.cases():
            progress(case.name)
            found = admission_cases.tried(
                case, lambda pod: cel_policy.decide(text, pod, RepositoryWorld(lambda _: repository), now)
            )
            # By the name that pods use: the trial's own registry has another port each time, its layout another folder.
            tried.append(replace(found, message=found.message.replace(repository.name, place)))
    return Trial(tuple(tried), over)


def _place(glob: str) -> str:
    """A repository that the glob is about: `*` stands for everything, in every registry."""
    above, slash, last = glob.replace("?", "x").rpartition("/")
    name = f"{above}{slash}{last.partition(':')[0].partition('@')[0]}".replace("*", _REPOSITORY)
    return name if "/" in name else f"registry.example.com/{name}"


def cases_table(trial: Trial) -> pa.Table:
    """Rows of ADMISSION_CASES."""
    return pa.Table.from_pylist(
        [
            {
                "position": at,
                "case": each.case.name,
                "expected": each.case.expected,
                "found": each.found,
                "is_right": each.is_right,
                "message": each.message or None,
            }
            for at, each in enumerate(trial.tried, 1)
        ],
        schema=ADMISSION_CASES.schema,
    )


@contextmanager
def _repository(folder: Path) -> Iterator[tuple[Repository, str]]:
    """A real registry where its program is installed, else a layout; and which of them it is."""
    if docker_registry.found():
        with docker_registry.running(folder / "registry") as host:
            yield Registry(host, _REPOSITORY, lambda _: None), "a real registry (docker-registry)"
    else:
        yield Layout(folder / "layout", create=True), "an OCI layout (docker-registry is not installed)"
