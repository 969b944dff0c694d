"""Files bundles in a process of its own, which is killed with SIGKILL at a named step or from outside.

Usage: python filer.py HOME COUNT KILL_AT GPG [EXTRA_JSON]. Prints the id of each bundle once it is filed, and at the end the
number of steps taken. A step is an operation on the file system; before number KILL_AT the process kills itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from greenops_pipelines.evidence.opening import Evidence
from greenops_pipelines.settings import Settings

STEPS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "fcntl.flock", "subprocess.Popen"}


def main(home: Path, count: int, kill_at: int, gpg: str, extra: dict[str, Any]) -> None:
    evidence = Evidence(Settings(_env_file=None, home=home, evidence_gpg=gpg, **extra))
    steps = 0

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal steps
        if event in STEPS and str(home.parent) in str(args):
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    for number in range(count):
        receipt = evidence.archive.file("J4.2", f"drill {number}", {"n": number}, {"a.txt": b"a" * 5000}, "aborted")
        print(receipt.id if receipt.state == "filed" else f"queued {receipt.id} {receipt.detail}", flush=True)
    print("steps", steps, flush=True)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
        json.loads(sys.argv[5]) if sys.argv[5:] else {},
    )
