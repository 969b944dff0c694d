"""An operator's commands over two servers: fence, promote, failback. `state.json` beside it says where they are.

python operate.py STATE COMMAND
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

state = json.loads(Path(sys.argv[1]).read_text())
primary, standby = state["servers"]


def pg(*words: str) -> None:
    subprocess.run([*state["prefix"], f"{state['bin']}/{words[0]}", *words[1:]], check=True, stdout=subprocess.DEVNULL)


def start(server: dict, as_standby: bool) -> None:  # type: ignore[type-arg]
    mark = Path(server["data"]) / "standby.signal"
    mark.touch() if as_standby else mark.unlink(missing_ok=True)
    options = f"-c config_file={server['config']} -c hba_file={server['hba']} -p {server['port']}"
    pg("pg_ctl", "start", "-D", server["data"], "-o", options, "-l", server["log"], "-w")


match sys.argv[2]:
    case "kill" | "fence":
        path = Path(primary["data"]) / "postmaster.pid"
        pid = int(path.read_text().splitlines()[0]) if path.exists() else 0
        children = Path(f"/proc/{pid}/task/{pid}/children")
        for each in [pid, *map(int, children.read_text().split())] if children.exists() else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists() and pid:
            time.sleep(0.02)
    case "promote":
        pg("pg_ctl", "promote", "-D", standby["data"], "-w")
    case "route":
        # Clients find the primary by themselves: target_session_attrs=read-write.
        pass
    case "failback":
        source = standby["dsn"]
        pg(
            "pg_rewind",
            "--target-pgdata",
            primary["data"],
            "--source-server",
            source,
            "--config-file",
            primary["config"],
        )
        start(primary, as_standby=True)
        time.sleep(1)
        pg("pg_ctl", "stop", "-D", standby["data"], "-m", "fast", "-w")
        pg("pg_ctl", "promote", "-D", primary["data"], "-w")
        start(standby, as_standby=True)
    case "broken":
        sys.exit("the control plane does not answer")
