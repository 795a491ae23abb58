"""Further scenarios: siblings of the common slowdowns, and more cases in which nothing is wrong."""

from __future__ import annotations

import shutil
import sys
import threading
import time

from tests.scenarios.catalogue import FLOCK, HOLD, LOOP, READER, STEADY, cpus
from tests.scenarios.scenario import scenario
from tests.scenarios.stage import Missing, Stage

THREADS = """#include <pthread.h>
#include <sys/prctl.h>
static volatile long x;
static void *f(void *a) { prctl(PR_SET_NAME, "GC Thread", 0, 0, 0); for (;;) x++; }
int main() { pthread_t t; for (int i = 0; i < 8; i++) pthread_create(&t, 0, f, 0); f(0); }
"""


# -- the CPU ---------------------------------------------------------------------------------------------------------

@scenario("culprit", "a SCHED_RR loop on the last core; victim: a process bound to it", who=("rr_loop",), causes=("cpu",),
          victims=("bound",))
def cpu_rr(stage: Stage) -> None:
    stage.python("bound.py", STEADY, "0.5", cpus={cpus() - 1})
    stage.python("rr_loop.py", LOOP, cpus={cpus() - 1}, rr=10)


@scenario("self", "nine threads of one program bound to one core, the others idle", who=("appserver",),
          causes=("limit", "affinity", "cpu"))
def cpu_bound(stage: Stage) -> None:
    stage.start(stage.program("appserver", THREADS), cpus={0})


@scenario("culprit", "threads with names of their own; victim: a 20 % process", who=("appserver",), causes=("cpu",),
          victims=("player",))
def cpu_named_threads(stage: Stage) -> None:
    stage.python("player.py", STEADY, "0.2")
    stage.start(stage.program("appserver", THREADS))


@scenario("culprit", "a pipeline of three on the CPU", who=("sha256sum", "tr", "checksum"), causes=("cpu",))
def cpu_pipeline(stage: Stage) -> None:
    stage.sh("checksum.sh", "cat /dev/zero | tr '\\0' x | sha256sum\n")


@scenario("culprit", "150 ms on all CPUs every 5 s", who=("tick_job",), causes=("cpu",), seconds=21)
def cpu_burst(stage: Stage) -> None:
    stage.script("work.py", "import time\nend = time.time() + 0.15\nwhile time.time() < end: pass\n")
    stage.python("tick_job.py", "import os, time\nwhile True:\n"
                 f" for _ in range({cpus() - 1}):\n"
                 "  if not os.fork():\n   end = time.time() + 0.15\n   while time.time() < end: pass\n   os._exit(0)\n"
                 " end = time.time() + 0.15\n while time.time() < end: pass\n time.sleep(4.85)\n")


@scenario("culprit", "`yes` in a terminal multiplexer", who=("yes",), causes=("cpu",))
def cpu_terminal(stage: Stage) -> None:
    socket = stage.directory / "tmux"
    stage.run("tmux", "-S", socket, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "yes",
              undo=["tmux", "-S", str(socket), "kill-server"])


@scenario("culprit", "git status again and again in a large tree", who=("prompt_helper", "git"), causes=("cpu",))
def cpu_git(stage: Stage) -> None:
    stage.run("git", "init", "-q", "tree")
    for number in range(3000):
        (stage.directory / "tree" / f"f{number}").touch()
    stage.sh("prompt_helper.sh", "cd tree; while :; do git status --porcelain >/dev/null; done\n")


@scenario("culprit", "ninja with many small commands", who=("ninja",), causes=("cpu",))
def cpu_ninja(stage: Stage) -> None:
    rules = "rule cc\n  command = echo 'int f$n(){return 1;}' | cc -x c -c -o $out -\n"
    stage.script("build.ninja", rules + "".join(f"build o{n}.o: cc\n  n = {n}\n" for n in range(3000)))
    stage.start("ninja", "-j", str(2 * cpus()))


# -- many short processes --------------------------------------------------------------------------------------------

@scenario("culprit", "stress-ng forks all the time", who=("stress-ng",), causes=("cpu",))
def storm_fork(stage: Stage) -> None:
    stage.start("stress-ng", "--fork", "2", "--timeout", "60")


@scenario("culprit", "a script whose children fork children: a tree of short loops", who=("tree_job",), causes=("cpu",))
def storm_tree(stage: Stage) -> None:
    stage.python("tree_job.py", "import os, time\ndef grow(depth):\n"
                 " for _ in range(4):\n  if not os.fork():\n   if depth: grow(depth - 1)\n   end = time.time() + 0.1\n"
                 "   while time.time() < end: pass\n   os._exit(0)\n"
                 " for _ in range(4): os.wait()\n"
                 "while True: grow(2)\n")


@scenario("culprit", "xargs starts one checksum for each file", who=("xargs", "hash_all"), causes=("cpu",))
def storm_xargs(stage: Stage) -> None:
    stage.sh("hash_all.sh", f"while :; do seq 2000 | xargs -n 1 -P {2 * cpus()} sh -c 'echo $0 | md5sum' >/dev/null; done\n")


# -- limits ----------------------------------------------------------------------------------------------------------

@scenario("self", "four threads with half a core", who=("encoder", "half"), causes=("limit", "cpu_quota"))
def quota_threads(stage: Stage) -> None:
    group = stage.group("cpu", "half", cpu__cfs_period_us=100000, cpu__cfs_quota_us=50000)
    stage.start(stage.program("encoder", THREADS), group=group)


@scenario("self", "a reader that may make 100 requests a second", who=("scan_index", "fewreads"), causes=("limit", "io"))
def quota_iops(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=data.bin", "bs=1M", "count=100", "oflag=direct")
    group = stage.group("blkio", "fewreads", blkio__throttle__read_iops_device=f"{stage.device()} 100")
    stage.python("scan_index.py", READER.replace("    time.sleep(0.02)\n", ""), "data.bin", group=group)


@scenario("self", "a server with as many files open as it may have tries again and again", who=("frontend",),
          causes=("limit", "rlimit"))
def quota_files(stage: Stage) -> None:
    stage.python("frontend.py", "import os, resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\nheld = []\n"
                 "while True:\n try: held.append(os.open('/dev/null', 0))\n except OSError: pass\n")


@scenario("self", "a server whose control group has as many tasks as it may tries again and again to start a worker",
          who=("gateway",), causes=("limit", "tasks", "rlimit"))
def quota_tasks(stage: Stage) -> None:
    group = stage.group("pids", "fewtasks", pids__max=8)
    stage.python("gateway.py", "import os, signal, time\nfor _ in range(7):\n if not os.fork():\n  while True: time.sleep(600)\n"
                 "while True:\n try:\n  if not os.fork(): os._exit(0)\n except OSError: time.sleep(0.0005)\n", group=group)


@scenario("culprit", "an uploader tries again and again on a full disk", who=("uploader",), causes=("io", "disk_full", "limit"))
def io_full(stage: Stage) -> None:
    place = stage.directory / "small"
    place.mkdir()
    stage.run("mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place, undo=["umount", "-l", str(place)])
    stage.run("sh", "-c", f"dd if=/dev/zero of={place}/old bs=1M 2>/dev/null || true")
    stage.python("uploader.py", "import sys\nblock = bytes(1 << 20)\nwhile True:\n try:\n"
                 "  with open(sys.argv[1], 'ab', 0) as f:\n   while True: f.write(block)\n except OSError: pass\n",
                 place / "upload")


# -- memory ----------------------------------------------------------------------------------------------------------

@scenario("culprit", "350 MB of memory in a group of 150 MB: swaps all the time", who=("hoarder", "swapper"),
          causes=("memory", "limit"))
def mem_swap(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=swapfile", "bs=1M", "count=600")
    (stage.directory / "swapfile").chmod(0o600)
    stage.run("mkswap", "swapfile")
    stage.run("swapon", "swapfile", undo=["swapoff", str(stage.directory / "swapfile")])
    stage.python("hoarder.py", "import random\nheld = bytearray(350 << 20)\nwhile True: held[random.randrange(len(held))] = 1\n",
                 group=stage.group("memory", "swapper", memory__limit_in_bytes=150 << 20))


# -- storage ---------------------------------------------------------------------------------------------------------

@scenario("culprit", "find through the whole disk with a cold cache", who=("find",), causes=("io", "cpu"))
def io_find(stage: Stage) -> None:
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    stage.start("find", "/usr", "/root", "/var", "/work", "-xdev", "-type", "f", "-newer", "/etc/passwd", "-size", "+1k")


@scenario("culprit", "thousands of small files, each synchronous", who=("unpack",), causes=("io", "cpu"))
def io_small_files(stage: Stage) -> None:
    (stage.directory / "tree").mkdir()
    stage.python("unpack.py", "import os\nn = 0\nwhile True:\n n += 1\n fd = os.open(f'tree/{n}', os.O_CREAT | os.O_WRONLY)\n"
                 " os.write(fd, b'x' * 2000)\n os.fsync(fd)\n os.close(fd)\n")


@scenario("culprit", "tar and gzip over many files", who=("tar", "gzip", "nightly"), causes=("cpu", "io"))
def io_archive(stage: Stage) -> None:
    stage.sh("nightly.sh", "while :; do tar cf - -C / usr/lib 2>/dev/null | gzip -6 >/dev/null; done\n")


# -- waits without use -----------------------------------------------------------------------------------------------

@scenario("culprit", "a chain of locks: the first holder sleeps", who=("root_job",), causes=("wait", "file_lock"),
          victims=("second", "third"))
def lock_chain(stage: Stage) -> None:
    code = ("import fcntl, sys, time\nheld = []\nfor name in sys.argv[1:]:\n f = open(name, 'a')\n held.append(f)\n"
            " fcntl.flock(f, fcntl.LOCK_EX)\ntime.sleep(600)\n")
    stage.python("root_job.py", code, "a.lock")
    time.sleep(0.5)
    stage.python("second.py", code, "b.lock", "a.lock")
    time.sleep(0.5)
    stage.python("third.py", code, "c.lock", "b.lock")
    time.sleep(0.5)
    stage.python("fourth.py", code, "c.lock")


@scenario("culprit", "a pipeline of three, the last does not read", who=("slow_reader",), causes=("wait", "pipe"),
          victims=("producer", "filter"))
def lock_pipe_chain(stage: Stage) -> None:
    stage.script("producer.py", "import os\nwhile True: os.write(1, b'x' * 65536)\n")
    stage.script("filter.py", "import os\nwhile True: os.write(1, os.read(0, 65536))\n")
    stage.script("slow_reader.py", "import time, sys\nsys.stdin.buffer.read(10)\ntime.sleep(600)\n")
    stage.sh("pipeline.sh", f"{sys.executable} producer.py | {sys.executable} filter.py | {sys.executable} slow_reader.py\n")


@scenario("culprit", "a transaction of SQLite stays open; others try to write", who=("report_job",), causes=("wait", "file_lock"),
          victims=("writer",), seconds=12)
def lock_sqlite(stage: Stage) -> None:
    stage.python("report_job.py", "import sqlite3, time\nd = sqlite3.connect('x.db', isolation_level=None)\n"
                 "d.execute('create table t(x)')\nd.execute('begin immediate')\nd.execute('insert into t values (1)')\n"
                 "time.sleep(600)\n")
    time.sleep(1)
    for _ in range(4):
        stage.python("writer.py", "import sqlite3\nd = sqlite3.connect('x.db', timeout=600)\nd.execute('insert into t values (2)')\n"
                     "d.commit()\n")


@scenario("culprit", "a debugger has stopped a worker", who=("debugger",), causes=("wait", "traced"), victims=("worker",))
def lock_traced(stage: Stage) -> None:
    worker = stage.python("worker.py", STEADY, "0.1")
    time.sleep(0.5)
    stage.python("debugger.py", "import ctypes, os, sys, time\npid = int(sys.argv[1])\n"
                 "assert ctypes.CDLL(None).ptrace(16, pid, None, None) == 0\nos.waitpid(pid, 0)\ntime.sleep(600)\n", str(worker.pid))


@scenario("culprit", "a server is stopped while clients wait for its answer", who=("server",), causes=("wait", "stopped"),
          victims=("client",))
def lock_stopped_server(stage: Stage) -> None:
    server = stage.python("server.py", "import socket, os\ns = socket.socket(socket.AF_UNIX)\ns.bind('server.sock')\ns.listen(9)\n"
                          "import selectors\nsel = selectors.DefaultSelector()\nsel.register(s, 1)\nwhile True:\n"
                          " for key, _ in sel.select():\n  if key.fileobj is s: sel.register(s.accept()[0], 1)\n"
                          "  else: key.fileobj.sendall(key.fileobj.recv(9))\n")
    stage.stop_before_clients(server, "socket.socket(socket.AF_UNIX)\ns.connect('server.sock')")


@scenario("culprit", "a step of a script is stopped, the script waits for it", who=("step_two",), causes=("wait", "stopped"),
          victims=("nightly",))
def lock_stopped_step(stage: Stage) -> None:
    stage.script("step_two.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n")
    stage.sh("nightly.sh", f"{sys.executable} step_two.py; echo done\n")


@scenario("nobody", "a file system is frozen, a writer waits", causes=("wait",))
def lock_fs_frozen(stage: Stage) -> None:
    if shutil.which("fsfreeze") is None:
        raise Missing("no fsfreeze")
    stage.run("dd", "if=/dev/zero", "of=image", "bs=1M", "count=1", "seek=60")
    stage.run("mkfs.ext4", "-q", "-F", "image")
    place = stage.directory / "mnt"
    place.mkdir()
    stage.run("mount", "-o", "loop", "image", "mnt", undo=["umount", "-l", str(place)])
    stage.run("fsfreeze", "-f", place, undo=["fsfreeze", "-u", str(place)])
    stage.python("saver.py", "open('mnt/file', 'w').write('x')\n")


@scenario("nobody", "a control group of version 2 is frozen", who=("batch",), causes=("wait", "frozen"))
def lock_frozen_v2(stage: Stage) -> None:
    group = stage.group("", "rh-frozen-two")
    stage.python("batch.py", STEADY, "0.2", group=group)
    time.sleep(2)
    (group / "cgroup.freeze").write_text("1")


@scenario("culprit", "a real-time loop keeps the holder of a lock off its core", who=("fifo_loop",), causes=("cpu",))
def sched_inversion(stage: Stage) -> None:
    last = {cpus() - 1}
    stage.python("holder.py", "import fcntl\nfile = open('i.lock', 'a')\nfcntl.flock(file, fcntl.LOCK_EX)\n" + LOOP, cpus=last)
    time.sleep(0.5)
    stage.python("waiter.py", FLOCK, "i.lock")
    stage.python("fifo_loop.py", LOOP, cpus=last, fifo=10)


@scenario("culprit", "a flood of UDP packets over loopback", who=("flood",), causes=("cpu",))
def net_udp(stage: Stage) -> None:
    stage.python("collector.py", "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 15299))\n"
                 "while True: s.recv(2000)\n")
    stage.python("flood.py", "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.connect(('127.0.0.1', 15299))\n"
                 "while True:\n try: s.send(b'x' * 20)\n except OSError: pass\n")


# -- pauses of rh-pipe alone -----------------------------------------------------------------------------------------

@scenario("nobody", "the control group of rh-pipe is frozen for 2 s", causes=("unknown", "stopped"))
def pause_frozen(stage: Stage) -> None:
    group = stage.group("freezer", "rh-frozen-pipe")
    pid = (stage.directory / "pipe.pid").read_text()

    def freeze() -> None:
        (group / "freezer.state").write_text("FROZEN")
        time.sleep(2)
        (group / "freezer.state").write_text("THAWED")
        (group.parent / "cgroup.procs").write_text(pid)

    (group / "cgroup.procs").write_text(pid)
    time.sleep(3)
    threading.Thread(target=freeze, daemon=True).start()


# -- nothing is wrong ------------------------------------------------------------------------------------------------

@scenario("benign", "a pager waits for a person, and its writer for the pager")
def ok_pager(stage: Stage) -> None:
    stage.start("script", "-qc", "seq 100000000 | less", "/dev/null")


@scenario("benign", "tar and xz at nice 19: the writer waits for the slower compressor")
def ok_archive(stage: Stage) -> None:
    stage.sh("backup.sh", "tar cf - -C / usr/lib 2>/dev/null | xz -1 -T1 >/dev/null\n", nice=19)


@scenario("benign", "a copy at 20 MB/s")
def ok_copy(stage: Stage) -> None:
    stage.python("copy.py", "import os, time\nfd = os.open('copy.bin', os.O_WRONLY | os.O_CREAT)\nblock = os.urandom(1 << 20)\n"
                 "while True:\n for _ in range(2): os.write(fd, block)\n os.fdatasync(fd)\n time.sleep(0.1)\n"
                 " os.lseek(fd, 0, 0)\n")


@scenario("benign", "two hundred threads that wait for work")
def ok_pool(stage: Stage) -> None:
    stage.start(stage.program("pool", "#include <pthread.h>\nstatic pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;\n"
                              "static pthread_cond_t c = PTHREAD_COND_INITIALIZER;\n"
                              "static void *f(void *a) { pthread_mutex_lock(&m); for (;;) pthread_cond_wait(&c, &m); }\n"
                              "int main() { pthread_t t; for (int i = 0; i < 200; i++) pthread_create(&t, 0, f, 0); f(0); }\n"))


@scenario("benign", "a program that holds a lock others do not want, a cache of 300 MB")
def ok_lock(stage: Stage) -> None:
    stage.python("daemon.py", FLOCK, "pid.lock")
    stage.python("cache.py", HOLD, "300")
