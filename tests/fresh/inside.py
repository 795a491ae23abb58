"""The first process in an empty root: mounts what a machine has, starts the command as its user, and reaps orphans.

Started by tests/fresh/machine.py in new mount and process namespaces: inside.py ROOT SCRATCH UID SHARED COMMAND...
SHARED is a JSON object: path of this machine -> path in the root.
All mounts and processes end with this process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

FIRST_PID = 5000
"""Where the numbering of processes starts: rh-reap refuses pids below 1000, which on a real machine are the system's."""


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def prepare(root: str, scratch: str, shared: dict[str, str]) -> str:
    """Mounts the root under a layer that takes the writes, with the file systems of the kernel. Returns its path."""
    merged = f"{scratch}/merged"
    mount("-t", "overlay", "overlay", "-o", f"lowerdir={root},upperdir={scratch}/upper,workdir={scratch}/work", merged)
    mount("-t", "proc", "proc", f"{merged}/proc")
    mount("--rbind", "/sys", f"{merged}/sys")
    mount("--rbind", "/dev", f"{merged}/dev")
    for path, at in shared.items():
        target = Path(merged + at)
        if Path(path).is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        above = target.parent
        while above != Path(merged):    # a Python below /root, which is closed to others
            above.chmod(above.stat().st_mode | 0o111)
            above = above.parent
        mount("--bind", path, str(target))
        mount("-o", "remount,bind,ro", str(target))
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        if Path(name).exists():
            Path(merged + name).write_text(Path(name).read_text())
    Path(f"{merged}/proc/sys/kernel/ns_last_pid").write_text(str(FIRST_PID))
    return merged


def main() -> int:
    root, scratch, user, shared, *command = sys.argv[1:]
    merged = prepare(root, scratch, json.loads(shared))
    child = os.fork()
    if not child:
        os.chroot(merged)
        uid = int(user)
        if uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        os.chdir(os.environ["HOME"])
        os.setsid()
        os.execvp(command[0], command)
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 255


if __name__ == "__main__":
    sys.exit(main())
