"""The scenarios: each with its set-up, who is to blame, for what, and who suffers."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from tests.scenarios.scenario import scenario
from tests.scenarios.stage import Stage

LOOP = "while True: pass\n"
STEADY = """import sys, time
share = float(sys.argv[1])
while True:
    end = time.perf_counter() + share * 0.05
    while time.perf_counter() < end: pass
    time.sleep((1 - share) * 0.05)
"""
"""Uses a share of a core, in slices of 50 ms."""
WRITE = """import os, sys, time
file, mega, fsync = sys.argv[1], int(sys.argv[2]), len(sys.argv) > 3
fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
block = os.urandom(1 << 20)
for _ in range(mega):
    os.write(fd, block)
    if fsync: os.fsync(fd)
time.sleep(600)
"""
READER = """import os, sys, time, random
fd = os.open(sys.argv[1], os.O_RDONLY | getattr(os, 'O_DIRECT', 0))
import mmap
buf = mmap.mmap(-1, 4096)
size = os.fstat(fd).st_size
while True:
    os.preadv(fd, [buf], random.randrange(size // 4096) * 4096)
    time.sleep(0.02)
"""
HOLD = """import sys, time
held = bytearray(int(sys.argv[1]) << 20)
for i in range(0, len(held), 4096): held[i] = 1
time.sleep(600)
"""
GROW = """import sys, time
held = []
for _ in range(int(sys.argv[1])):
    held.append(bytearray(b'x') * (64 << 20))
    time.sleep(float(sys.argv[2]))
time.sleep(600)
"""
FLOCK = """import fcntl, sys, time
file = open(sys.argv[1], 'a')
fcntl.flock(file, fcntl.LOCK_EX)
while True:
    time.sleep(600)
"""


def cpus() -> int:
    return len(os.sched_getaffinity(0))


# -- the CPU ---------------------------------------------------------------------------------------------------------

@scenario("culprit", "a shell script in an endless loop", who=("rotate_logs",), causes=("cpu",))
def cpu_loop(stage: Stage) -> None:
    stage.sh("rotate_logs.sh", "while :; do :; done\n")


@scenario("culprit", "four workers on two cores; victim: a 20 % process", who=("stress-ng",), causes=("cpu",), victims=("player",))
def cpu_4on2(stage: Stage) -> None:
    stage.python("player.py", STEADY, "0.2")
    stage.start("stress-ng", "--cpu", str(2 * cpus()), "--timeout", "60")


@scenario("culprit", "nice'd compression on every core; victim: a 20 % process", who=("xz",), causes=("cpu",))
def cpu_nice(stage: Stage) -> None:
    stage.python("player.py", STEADY, "0.2")
    stage.sh("archive.sh", f"exec xz -T{cpus()} -9 -c /dev/zero >/dev/null\n", nice=10)


@scenario("culprit", "a SCHED_FIFO loop on core 1; victim: a process bound to it", who=("fifo_loop",), causes=("cpu",),
          victims=("bound",))
def cpu_fifo(stage: Stage) -> None:
    stage.python("bound.py", STEADY, "0.5", cpus={cpus() - 1})
    stage.python("fifo_loop.py", LOOP, cpus={cpus() - 1}, fifo=10)


@scenario("culprit", "a loop in a container's control group", who=("exporter",), causes=("cpu",))
def cpu_container(stage: Stage) -> None:
    group = stage.group("cpu", f"docker-{'ab12' * 16}.scope")
    stage.python("exporter.py", LOOP, group=group)
    stage.python("exporter.py", LOOP, group=group)


@scenario("culprit", "two loops of the user nobody", who=("sh", "crawl"), causes=("cpu",))
def cpu_user(stage: Stage) -> None:
    stage.sh("crawl.sh", "while :; do :; done\n", user=65534)
    stage.start("/bin/sh", stage.directory / "crawl.sh", user=65534)


@scenario("culprit", "a Python script that calls itself kworker/u8:2", who=("rename_me",), causes=("cpu",))
def cpu_rename(stage: Stage) -> None:
    stage.python("rename_me.py", "import ctypes\nctypes.CDLL(None).prctl(15, b'kworker/u8:2', 0, 0, 0)\n" + LOOP)


@scenario("culprit", "python3 report_builder.py", who=("report_builder",), causes=("cpu",))
def cpu_python(stage: Stage) -> None:
    stage.python("report_builder.py", LOOP)


@scenario("culprit", "two Python scripts: one steady, one that hogs", who=("indexer",), causes=("cpu",))
def cpu_two_pythons(stage: Stage) -> None:
    stage.python("steady.py", STEADY, "0.15")
    for _ in range(cpus()):
        stage.python("indexer.py", LOOP)


@scenario("culprit", "3 s of work below bash, env and timeout, again and again", who=("work", "job"), causes=("cpu",))
def cpu_chain(stage: Stage) -> None:
    work = stage.script("work.py", "import time\nend = time.time() + 3\nwhile time.time() < end: pass\n")
    stage.sh("job.sh", f"while :; do bash -c 'env A=1 timeout 20 {sys.executable} {work}; :'; sleep 0.3; done\n")


@scenario("culprit", "threads: one program with as many loops as cores", who=("spinner",), causes=("cpu",))
def cpu_threads(stage: Stage) -> None:
    program = stage.program("spinner", "#include <pthread.h>\nstatic void *f(void *a) { for (volatile long x = 0;; x++); }\n"
                            f"int main() {{ pthread_t t; for (int i = 1; i < {cpus()}; i++) pthread_create(&t, 0, f, 0); f(0); }}\n")
    stage.start(program)


@scenario("culprit", "four spinners bound to CPU 0 while another idles; victim bound to CPU 0", who=("spin0",),
          causes=("cpu", "limit", "affinity"), victims=("tied",))
def cpu_affinity(stage: Stage) -> None:
    stage.python("tied.py", STEADY, "0.5", cpus={0})
    for _ in range(4):
        stage.python("spin0.py", LOOP, cpus={0})


@scenario("culprit", "everything in the kernel: dd from /dev/urandom", who=("dd",), causes=("cpu",))
def kern_urandom(stage: Stage) -> None:
    stage.start("dd", "if=/dev/urandom", "of=/dev/null", "bs=1M")


# -- many short processes ----------------------------------------------------------------------------------------------

@scenario("culprit", "a shell that starts /bin/true again and again", who=("poll_status", "sh"), causes=("cpu", "storm", "spawn"))
def storm_true(stage: Stage) -> None:
    stage.sh("poll_status.sh", "while :; do /bin/true; done\n")


@scenario("culprit", "make -j4 of many tiny C files", who=("make",), causes=("cpu", "storm", "spawn"))
def storm_make(stage: Stage) -> None:
    rule = "all: $(patsubst %,o%,$(shell seq 1 4000))\no%:\n\t@echo 'int f$*(){return 1;}' | cc -x c -c -o /dev/null -\n"
    (stage.directory / "Makefile").write_text(rule)
    stage.start("make", f"-j{2 * cpus()}", "-s")


@scenario("culprit", "a cron-like parent starts 30 gzips at once, every 2 s", who=("crond.py", "crond", "nightly"),
          causes=("cpu", "storm", "spawn"))
def storm_cron(stage: Stage) -> None:
    stage.python("crond.py", "import subprocess, time\nwhile True:\n"
                 " for _ in range(30): subprocess.Popen('head -c 12000000 /dev/urandom | gzip -9 >/dev/null', shell=True)\n"
                 " time.sleep(2)\n")


@scenario("culprit", "one script starts loops of 30 names; victim: a 20 % process", who=("fanout", "job_"), causes=("cpu",),
          victims=("player",))
def sched_fanout(stage: Stage) -> None:
    stage.python("player.py", STEADY, "0.2")
    for number in range(30):
        stage.script(f"job_a{number:02}", "#!/bin/sh\nwhile :; do :; done\n")
    stage.sh("fanout.sh", f"for i in $(seq 0 29); do {stage.directory}/job_a$(printf %02d $i) & done; wait\n")


@scenario("culprit", "a supervisor that ignores SIGCHLD restarts a program that crashes at once", who=("supervise", "crash"),
          causes=("cpu", "storm", "spawn"))
def storm_supervisor(stage: Stage) -> None:
    stage.script("crash.py", "sum(range(200000)); raise SystemExit(1)\n")
    stage.python("supervise.py", "import signal, subprocess, sys, os\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
                 f"while True:\n p = os.fork()\n if not p: os.execv(sys.executable, [sys.executable, '{stage.directory}/crash.py'])\n"
                 " try: os.waitpid(p, 0)\n except ChildProcessError: pass\n")


# -- its own limits --------------------------------------------------------------------------------------------------

@scenario("self", "a loop in a control group with 20 % of a core, the machine idle", who=("encoder", "limited"),
          causes=("limit", "cpu_quota"))
def quota_one(stage: Stage) -> None:
    stage.python("encoder.py", LOOP, group=stage.group("cpu", "limited", cpu__cfs_period_us=100000, cpu__cfs_quota_us=20000))


@scenario("self", "a writer that may write 4 MB/s", who=("uploader", "slowdisk"), causes=("limit", "io"))
def quota_io(stage: Stage) -> None:
    group = stage.group("blkio", "slowdisk", blkio__throttle__write_bps_device=f"{stage.device()} 4194304")
    stage.start("dd", "if=/dev/zero", f"of={stage.directory}/uploader", "bs=256k", "oflag=direct", group=group)


@scenario("self", "a program killed again and again at its memory limit", who=("resizer", "small"), causes=("limit", "memory", "oom_kill"))
def quota_oom(stage: Stage) -> None:
    group = stage.group("memory", "small", memory__limit_in_bytes=200 << 20)
    stage.script("resizer.py", "x = []\nwhile True: x.append(bytearray(b'x') * (8 << 20))\n")
    stage.sh("keeper.sh", f"while :; do {sys.executable} {stage.directory}/resizer.py; sleep 0.3; done\n", group=group)


# -- memory ----------------------------------------------------------------------------------------------------------

@scenario("culprit", "takes 2.5 GB in a few seconds and holds it", who=("loader",), causes=("memory",))
def mem_grow(stage: Stage) -> None:
    stage.python("loader.py", GROW, "40", "0.1")


@scenario("culprit", "800 MB of a file mapped in a group of 200 MB: thrashes at its own limit", who=("modeler", "thrash"),
          causes=("memory", "limit"))
def mem_thrash(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=model.bin", "bs=1M", "count=800", "oflag=direct")
    stage.python("modeler.py", "import mmap, random, sys\nf = open(sys.argv[1], 'rb')\nm = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n"
                 "while True: m[random.randrange(len(m) // 4096) * 4096]\n", "model.bin",
                 group=stage.group("memory", "thrash", memory__limit_in_bytes=200 << 20))


@scenario("culprit", "takes the page cache of a reader in the same group of 1 GB", who=("greedy",), causes=("memory", "limit"),
          victims=("lookup",), seconds=12)
def mem_evict(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=table.bin", "bs=1M", "count=600", "oflag=direct")
    group = stage.group("memory", "shared", memory__limit_in_bytes=1 << 30)
    stage.python("lookup.py", "import os, random, sys\nf = os.open(sys.argv[1], os.O_RDONLY)\nn = os.fstat(f).st_size\n"
                 "for at in range(0, n, 1 << 20): os.pread(f, 1 << 20, at)\n"
                 "while True: os.pread(f, 4096, random.randrange(n // 4096) * 4096)\n", "table.bin", group=group)
    time.sleep(3)
    stage.python("greedy.py", HOLD, "800", group=group)


# -- storage ---------------------------------------------------------------------------------------------------------

@scenario("culprit", "random direct reads; victim: a reader of 4 KB at 50/s", who=("fio",), causes=("io",), victims=("polite",))
def io_fio(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=data.bin", "bs=1M", "count=400")
    stage.python("polite.py", READER, "data.bin")
    stage.start("fio", "--name=hog", f"--filename={stage.directory}/data.bin", "--rw=randread", "--bs=64k", "--iodepth=16",
                "--ioengine=psync", "--direct=1", "--numjobs=8", "--time_based", "--runtime=60", "--size=400m")


@scenario("culprit", "direct writes of 1 MB", who=("dd",), causes=("io",))
def io_ddw(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=victim.bin", "bs=1M", "count=100")
    stage.python("polite.py", READER, "victim.bin")
    stage.start("dd", "if=/dev/zero", f"of={stage.directory}/big", "bs=1M", "oflag=direct", "count=200000", "conv=notrunc,fsync")


@scenario("culprit", "dd has written 1.5 GB and is gone; its shell waits", who=("dd", "backup_once"), causes=("io", "use", "cpu"))
def io_reaped(stage: Stage) -> None:
    stage.sh("backup_once.sh", f"dd if=/dev/zero of={stage.directory}/big bs=1M count=1500 oflag=direct; sleep 600\n")


@scenario("culprit", "one synchronous insert into SQLite after another", who=("ledger",), causes=("io", "cpu", "use"))
def io_fsync(stage: Stage) -> None:
    stage.python("ledger.py", "import sqlite3, sys\nd = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                 "d.execute('pragma synchronous=extra')\nd.execute('create table t(x)')\nwhile True: d.execute('insert into t values(1)')\n", "x.db")


@scenario("culprit", "writes 1.5 GB into the cache and goes idle; the kernel writes it back", who=("exporter",),
          causes=("io", "use", "cpu", "memory"))
def io_writeback(stage: Stage) -> None:
    stage.python("exporter.py", WRITE, "big", "1500")


@scenario("culprit", "writes into a file system on a loop device", who=("dd", "fill"), causes=("io", "cpu", "use"))
def io_loopdev(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=image", "bs=1M", "count=1", "seek=1500")
    stage.run("mkfs.ext4", "-q", "-F", "image")
    (stage.directory / "mnt").mkdir()
    stage.run("mount", "-o", "loop", "image", "mnt", undo=["umount", "-l", str(stage.directory / "mnt")])
    stage.sh("fill.sh", f"while :; do dd if=/dev/zero of={stage.directory}/mnt/f bs=1M count=1000 conv=fsync; done\n")


# -- waits without use -----------------------------------------------------------------------------------------------

def _lock_waiters(stage: Stage) -> None:
    for _ in range(6):
        stage.python("worker.py", FLOCK, "state.lock")


@scenario("culprit", "the holder of a file lock sleeps, six others wait for it", who=("nightly_lock",), causes=("wait", "file_lock"),
          victims=("worker",))
def lock_flock(stage: Stage) -> None:
    stage.python("nightly_lock.py", FLOCK, "state.lock")
    time.sleep(0.5)
    _lock_waiters(stage)


@scenario("culprit", "the holder of a file lock is stopped, six others wait", who=("nightly_lock",), causes=("wait", "file_lock"),
          victims=("worker",))
def lock_stopped(stage: Stage) -> None:
    holder = stage.python("nightly_lock.py", FLOCK, "state.lock")
    time.sleep(0.5)
    os.kill(holder.pid, signal.SIGSTOP)
    _lock_waiters(stage)


@scenario("culprit", "a writer waits for a reader that does not read its pipe", who=("slow_reader",), causes=("wait", "pipe"),
          victims=("producer",))
def lock_pipe(stage: Stage) -> None:
    stage.script("producer.py", "import os\nwhile True: os.write(1, b'x' * 65536)\n")
    stage.script("slow_reader.py", "import time, sys\nsys.stdin.buffer.read(10)\ntime.sleep(600)\n")
    stage.sh("pipeline.sh", f"{sys.executable} producer.py | {sys.executable} slow_reader.py\n")


@scenario("culprit", "a permission listener waits 30 ms before it allows each open in a directory", who=("scanner",),
          causes=("wait", "fanotify"), victims=("opener",))
def lock_fanotify(stage: Stage) -> None:
    (stage.directory / "watched").mkdir()
    (stage.directory / "watched/f").touch()
    stage.python("scanner.py", "import ctypes, os, struct, sys, time\nlibc = ctypes.CDLL(None)\nfd = libc.fanotify_init(4, 0)\n"
                 "assert libc.fanotify_mark(fd, 1, ctypes.c_uint64(0x08010000), -100, sys.argv[1].encode()) == 0\n"
                 "while True:\n for event in struct.iter_unpack('=IBBHQii', os.read(fd, 24)):\n"
                 "  time.sleep(0.03)\n  os.write(fd, struct.pack('=iI', event[5], 1))\n  os.close(event[5])\n",
                 str(stage.directory / "watched"))
    time.sleep(1)
    stage.python("opener.py", "import sys\nwhile True: open(sys.argv[1]).close()\n", "watched/f")


@scenario("nobody", "a control group is frozen", who=("frozen", "batch"), causes=("wait", "frozen"))
def lock_frozen(stage: Stage) -> None:
    group = stage.group("freezer", "rh-frozen")
    stage.python("batch.py", STEADY, "0.2", group=group)
    time.sleep(2)
    (group / "freezer.state").write_text("FROZEN")


@scenario("culprit", "200 threads contend for one mutex", who=("convoy",), causes=("wait", "mutex", "cpu", "use"))
def lock_futex(stage: Stage) -> None:
    program = stage.program("convoy", "#include <pthread.h>\nstatic pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;\nstatic volatile long x;\n"
                            "static void *f(void *a) { for (;;) { pthread_mutex_lock(&m); x++; pthread_mutex_unlock(&m); } }\n"
                            "int main() { pthread_t t; for (int i = 0; i < 200; i++) pthread_create(&t, 0, f, 0); f(0); }\n")
    stage.start(program)


# -- scheduling ------------------------------------------------------------------------------------------------------

@scenario("culprit", "10,000 timers a second", who=("ticker",), causes=("wakeups", "cpu", "use"))
def sched_timers(stage: Stage) -> None:
    program = stage.program("ticker", "#include <time.h>\nint main() { struct timespec t = {0, 50000}; for (;;) nanosleep(&t, 0); }\n")
    for _ in range(3):
        stage.start(program)


@scenario("culprit", "sched_yield in two workers", who=("stress-ng",), causes=("cpu",))
def sched_yield(stage: Stage) -> None:
    stage.start("stress-ng", "--yield", str(cpus()), "--timeout", "60")


@scenario("culprit", "iperf3 over loopback", who=("iperf3",), causes=("cpu", "use"))
def net_iperf(stage: Stage) -> None:
    stage.start("iperf3", "-s", "-p", "15201")
    time.sleep(0.5)
    stage.start("iperf3", "-c", "127.0.0.1", "-p", "15201", "-t", "60")


# -- pauses of the machine and of rh-pipe ----------------------------------------------------------------------------

@scenario("culprit", "SCHED_FIFO loops on all cores for 1.5 s, twice", who=("rtstorm",), causes=("cpu",), seconds=10)
def pause_fifo(stage: Stage) -> None:
    stage.script("rtstorm.py", "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\n")

    def burst() -> None:
        for cpu in range(cpus()):
            stage.start(sys.executable, stage.directory / "rtstorm.py", cpus={cpu}, fifo=20)

    time.sleep(2)
    burst()
    time.sleep(4)
    burst()


@scenario("nobody", "rh-pipe is stopped for 2 s, the machine is not", causes=("stopped",))
def pause_sigstop(stage: Stage) -> None:
    pid = int((stage.directory / "pipe.pid").read_text())

    def stop() -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(pid, signal.SIGCONT)

    time.sleep(3)
    threading.Thread(target=stop, daemon=True).start()


# -- nothing is wrong ------------------------------------------------------------------------------------------------

@scenario("benign", "an idle machine")
def ok_idle(stage: Stage) -> None:
    del stage


@scenario("benign", "make -j1 on an idle machine: heavy, but nothing waits")
def ok_build(stage: Stage) -> None:
    rule = "all: $(patsubst %,o%,$(shell seq 1 2000))\no%:\n\t@echo 'int f$*(){return 1;}' | cc -x c -c -o /dev/null -\n"
    (stage.directory / "Makefile").write_text(rule)
    stage.start("make", "-j1", "-s")


@scenario("benign", "a player at a steady quarter of a core")
def ok_video(stage: Stage) -> None:
    stage.python("player.py", STEADY, "0.25")


@scenario("benign", "a program that has held 2 GB for long")
def ok_resident(stage: Stage) -> None:
    stage.python("cache.py", HOLD, "2000")
    time.sleep(4)


@scenario("benign", "a backup at nice 19 on an otherwise idle machine")
def ok_backup(stage: Stage) -> None:
    stage.sh("backup.sh", "while :; do head -c 30000000 /dev/zero | gzip -1 >/dev/null; sleep 0.2; done\n", nice=19)


@scenario("benign", "two thousand idle processes", seconds=12)
def ok_crowd(stage: Stage) -> None:
    program = stage.program("idler", "#include <unistd.h>\nint main() { for (int i = 0; i < 2000; i++) if (!fork()) pause(); pause(); }\n")
    stage.start(program)
    time.sleep(3)
