"""Slowdowns of everyday work: editors, builds, databases, containers, jobs of the night; and everyday work that harms nothing."""

from __future__ import annotations

import shutil
import sys
import time

from tests.scenarios.catalogue import LOOP, READER, STEADY, WRITE, cpus
from tests.scenarios.scenario import scenario
from tests.scenarios.stage import Missing, Stage

JOURNAL = """import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
while True:
    os.pwrite(fd, b'x' * 512, 0)
    os.fsync(fd)
    time.sleep(0.02)
"""
"""A program that makes a small synchronous write 50 times a second, and notices when the disk is busy."""
SERVER = """import socket, threading
def serve(c):
    while c.recv(9): c.sendall(b'y')
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', 15298))
s.listen(20)
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


# -- the CPU ---------------------------------------------------------------------------------------------------------

@scenario("culprit", "a language server indexes on one core, the other is idle", who=("language_server",), causes=("cpu",))
def day_language_server(stage: Stage) -> None:
    stage.start("node", stage.script("language_server.js", "for (;;) {}\n"))


@scenario("culprit", "a Java program whose worker threads are hot", who=("java", "Ingest"), causes=("cpu",), seconds=12)
def day_java(stage: Stage) -> None:
    code = ("public class Ingest { public static void main(String[] a) { for (int i = 0; i < 2; i++) "
            "new Thread(() -> { for (long x = 0;; x++) { if (x == -1) System.out.println(x); } }, \"ingest-\" + i).start(); } }\n")
    stage.start("java", stage.script("Ingest.java", code))


@scenario("culprit", "two equal programs share the cores with a player", who=("resample", "render"), causes=("cpu",),
          victims=("player",))
def day_two_hogs(stage: Stage) -> None:
    stage.python("player.py", STEADY, "0.4")
    stage.python("resample.py", LOOP)
    stage.python("render.py", LOOP)


@scenario("culprit", "a pool of worker processes, twice as many as cores; victim: a player", who=("train",), causes=("cpu",),
          victims=("player",))
def day_worker_pool(stage: Stage) -> None:
    stage.python("player.py", STEADY, "0.3")
    stage.python("train.py", "import multiprocessing as m\ndef work(n):\n while True: sum(range(10000))\n"
                 f"if __name__ == '__main__':\n with m.Pool({2 * cpus()}) as p: p.map(work, range({2 * cpus()}))\n")


@scenario("culprit", "make with many short compilers and one long link", who=("make",), causes=("cpu",))
def day_make_link(stage: Stage) -> None:
    stage.script("link.py", LOOP)
    rule = (f"all: big $(patsubst %,o%,$(shell seq 1 4000))\nbig:\n\t@{sys.executable} link.py\n"
            "o%:\n\t@echo 'int f$*(){return 1;}' | cc -x c -c -o /dev/null -\n")
    (stage.directory / "Makefile").write_text(rule)
    stage.start("make", f"-j{2 * cpus()}", "-s")


@scenario("culprit", "zip of a large tree", who=("zip",), causes=("cpu", "io"))
def day_zip(stage: Stage) -> None:
    stage.start("sh", "-c", "exec zip -qr - /usr/lib >/dev/null")


@scenario("culprit", "a nightly job at nice 19 on all cores beside an interactive program", who=("nightly_index",),
          causes=("cpu",))
def day_nice19(stage: Stage) -> None:
    stage.python("editor.py", STEADY, "0.2")
    for _ in range(cpus()):
        stage.python("nightly_index.py", LOOP, nice=19)


@scenario("culprit", "loops at nice -20; victim: an ordinary program", who=("urgent",), causes=("cpu",), victims=("player",))
def day_nice_minus_20(stage: Stage) -> None:
    stage.python("player.py", STEADY, "0.4")
    for _ in range(cpus()):
        stage.python("urgent.py", LOOP, nice=-20)


@scenario("culprit", "a program in a group with a small share of the CPU starves beside loops", who=("batch_job",),
          causes=("cpu",), victims=("starved",))
def day_shares(stage: Stage) -> None:
    small = stage.group("cpu", "small-share", cpu__shares=2)
    stage.python("starved.py", STEADY, "0.8", group=small)
    for _ in range(cpus()):
        stage.python("batch_job.py", LOOP)


@scenario("culprit", "a loop in a pid namespace of its own", who=("miner", "unshare"), causes=("cpu",))
def day_namespace(stage: Stage) -> None:
    stage.start("unshare", "--pid", "--fork", "--mount-proc", sys.executable, stage.script("miner.py", LOOP))


@scenario("culprit", "work that has ended just before the question", who=("crunch",), causes=("cpu",), seconds=9)
def day_just_ended(stage: Stage) -> None:
    code = "import time\nend = time.time() + 5\nwhile time.time() < end: pass\n"
    for _ in range(cpus()):
        stage.python("crunch.py", code)


@scenario("culprit", "a program that was there before the watch began", who=("old_hog",), causes=("cpu",), early=True)
def day_before(stage: Stage) -> None:
    for _ in range(cpus()):
        stage.python("old_hog.py", LOOP)
    time.sleep(3)


@scenario("culprit", "a program that calls itself as one of the kernel does", who=("kswapd0", "dash", "sh"), causes=("cpu",))
def day_exec_name(stage: Stage) -> None:
    loop = stage.script("loop.sh", "while :; do :; done\n")
    stage.start("bash", "-c", f"exec -a '[kswapd0]' /bin/sh {loop}")


# -- many short processes ----------------------------------------------------------------------------------------------

@scenario("culprit", "a shell at a prompt runs date in a loop", who=("bash",), causes=("cpu",))
def day_prompt_loop(stage: Stage) -> None:
    stage.script("typed", "while :; do date >/dev/null; done\n")
    stage.run("sh", "-c", "true")
    stage.start("script", "-qc", f"bash --norc -i < {stage.directory}/typed", "/dev/null")


@scenario("culprit", "a fork bomb of modest size", who=("bomb",), causes=("cpu",))
def day_fork_bomb(stage: Stage) -> None:
    stage.python("bomb.py", "import os\nfor _ in range(8): os.fork()\n" + LOOP)


@scenario("culprit", "a test runner starts an interpreter for each test", who=("run_tests",), causes=("cpu",))
def day_test_runner(stage: Stage) -> None:
    stage.script("case.py", "import json, email, http.client\nsum(range(200000))\n")
    stage.python("run_tests.py", "import subprocess, sys\nwhile True:\n"
                 f" p = [subprocess.Popen([sys.executable, 'case.py']) for _ in range({2 * cpus()})]\n for one in p: one.wait()\n")


# -- limits ------------------------------------------------------------------------------------------------------------

@scenario("self", "a container with a CPU quota of half a core", who=("transcode", "container"), causes=("limit", "cpu_quota"))
def day_container_quota(stage: Stage) -> None:
    stage.group("cpu", "docker")
    group = stage.group("cpu", f"docker/{'cd34' * 16}", cpu__cfs_period_us=100000, cpu__cfs_quota_us=50000)
    stage.python("transcode.py", LOOP, group=group)
    stage.python("transcode.py", LOOP, group=group)


@scenario("self", "a server that leaks until the limit of its group kills it", who=("leaky", "leaks"),
          causes=("memory", "limit", "oom_kill"), seconds=12)
def day_leak(stage: Stage) -> None:
    group = stage.group("memory", "leaks", memory__limit_in_bytes=300 << 20)
    stage.python("leaky.py", "import time\nheld = []\nwhile True:\n held.append(bytearray(b'x') * (5 << 20))\n time.sleep(0.1)\n",
                 group=group)


# -- memory ------------------------------------------------------------------------------------------------------------

@scenario("culprit", "fills a file system in memory", who=("cache_warm",), causes=("memory", "io", "use", "cpu"))
def day_tmpfs(stage: Stage) -> None:
    place = stage.directory / "shm"
    place.mkdir()
    stage.run("mount", "-t", "tmpfs", "-o", "size=3g", "tmpfs", place, undo=["umount", "-l", str(place)])
    stage.python("cache_warm.py", "import os, sys, time\nblock = os.urandom(1 << 20)\nf = open(sys.argv[1], 'wb', 0)\n"
                 "for _ in range(2500):\n f.write(block)\n time.sleep(0.001)\ntime.sleep(600)\n", place / "cache")


@scenario("culprit", "a program takes the memory of another one in its group, which swaps", who=("importer",),
          causes=("memory", "limit"), victims=("lookup",), seconds=14)
def day_swap_other(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=swapfile", "bs=1M", "count=600")
    (stage.directory / "swapfile").chmod(0o600)
    stage.run("mkswap", "swapfile")
    stage.run("swapon", "swapfile", undo=["swapoff", str(stage.directory / "swapfile")])
    group = stage.group("memory", "webapp", memory__limit_in_bytes=300 << 20)
    stage.python("lookup.py", "import random, time\nheld = bytearray(b'x') * (120 << 20)\nwhile True:\n"
                 " for _ in range(200): held[random.randrange(len(held))] = 1\n time.sleep(0.01)\n", group=group)
    time.sleep(2)
    stage.python("importer.py", "import time\nheld = []\nfor _ in range(80):\n held.append(bytearray(b'x') * (5 << 20))\n"
                 " time.sleep(0.02)\nwhile True:\n for one in held:\n  for i in range(0, len(one), 4096): one[i] = 1\n",
                 group=group)


# -- storage -----------------------------------------------------------------------------------------------------------

@scenario("culprit", "checkpoints of a database: every 3 s much is written and synced; victim: a small journal",
          who=("database",), causes=("io",), victims=("journal",), seconds=12)
def day_checkpoint(stage: Stage) -> None:
    stage.python("journal.py", JOURNAL, "journal")
    stage.python("database.py", "import os, time\nfd = os.open('table', os.O_WRONLY | os.O_CREAT)\nblock = os.urandom(1 << 20)\n"
                 "while True:\n os.lseek(fd, 0, 0)\n for _ in range(400): os.write(fd, block)\n os.fsync(fd)\n time.sleep(3)\n")


@scenario("culprit", "a search through a cold tree; victim: a reader", who=("grep",), causes=("io", "cpu"))
def day_grep(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=data.bin", "bs=1M", "count=100", "oflag=direct")
    stage.run("sh", "-c", "echo 3 > /proc/sys/vm/drop_caches")
    stage.python("polite.py", READER, "data.bin")
    stage.start("sh", "-c", "exec grep -rs no-such-word /usr/lib /usr/share")


@scenario("culprit", "a shell calls sync again and again beside a writer", who=("paranoid", "sync", "importer"), causes=("io", "cpu"))
def day_sync_loop(stage: Stage) -> None:
    stage.python("importer.py", "import os, time\nblock = os.urandom(1 << 20)\nfd = os.open('big', os.O_WRONLY | os.O_CREAT)\nwhile True:\n"
                 " os.lseek(fd, 0, 0)\n for _ in range(60):\n  os.write(fd, block)\n  time.sleep(0.01)\n")
    stage.sh("paranoid.sh", "while :; do sync; done\n")


@scenario("culprit", "shred overwrites a file; victim: a small journal", who=("shred",), causes=("io", "cpu"), victims=("journal",))
def day_shred(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=secret", "bs=1M", "count=800", "oflag=direct")
    stage.python("journal.py", JOURNAL, "journal")
    stage.start("shred", "-n", "20", "secret")


@scenario("culprit", "a log writer fills its disk and tries on", who=("chatty",), causes=("io", "disk_full", "limit"))
def day_log_full(stage: Stage) -> None:
    stage.run("dd", "if=/dev/zero", "of=image", "bs=1M", "count=1", "seek=100")
    stage.run("mkfs.ext4", "-q", "-F", "image")
    (stage.directory / "mnt").mkdir()
    stage.run("mount", "-o", "loop", "image", "mnt", undo=["umount", "-l", str(stage.directory / "mnt")])
    stage.python("chatty.py", "import time\nline = b'retry\\n' * 2000\nf = open('mnt/log', 'ab', 0)\nwhile True:\n"
                 " try: f.write(line)\n except OSError: time.sleep(0.001)\n")


@scenario("culprit", "a copy of a large tree with rsync's way of writing; victim: a small journal", who=("cp", "mirror"),
          causes=("io", "cpu"), victims=("journal",), seconds=12)
def day_copy_tree(stage: Stage) -> None:
    stage.python("journal.py", JOURNAL, "journal")
    stage.sh("mirror.sh", "while :; do mkdir copy; cp -r /usr/lib/python3 /usr/lib/x86_64-linux-gnu copy; sync -f copy\n"
             "rm -rf copy; done\n")


# -- waits -------------------------------------------------------------------------------------------------------------

@scenario("culprit", "a database is stopped while clients wait for it over TCP", who=("database",), causes=("wait", "stopped"),
          victims=("client",))
def day_stopped_database(stage: Stage) -> None:
    server = stage.python("database.py", SERVER)
    stage.stop_before_clients(server, "socket.create_connection(('127.0.0.1', 15298))")


@scenario("culprit", "the holder of a POSIX lock sleeps, three wait", who=("package_job",), causes=("wait", "file_lock"),
          victims=("installer",))
def day_posix_lock(stage: Stage) -> None:
    code = "import fcntl, time\nf = open('pkg.lock', 'w')\nfcntl.lockf(f, fcntl.LOCK_EX)\ntime.sleep(600)\n"
    stage.python("package_job.py", code)
    time.sleep(0.5)
    for _ in range(3):
        stage.python("installer.py", code)


@scenario("culprit", "strace slows a program down", who=("strace", "parse"), causes=("cpu", "wait", "traced"))
def day_strace(stage: Stage) -> None:
    stage.start("strace", "-f", "-o", "/dev/null", sys.executable,
                stage.script("parse.py", "import os\nwhile True: os.stat('/etc/passwd')\n"))


# -- scheduling, sockets -----------------------------------------------------------------------------------------------

@scenario("culprit", "two programs that talk to each other without a break", who=("ping", "pong"), causes=("cpu", "wakeups", "use"))
def day_ping_pong(stage: Stage) -> None:
    stage.python("pong.py", SERVER)
    time.sleep(1)
    stage.python("ping.py", "import socket\ns = socket.create_connection(('127.0.0.1', 15298))\nwhile True:\n s.sendall(b'x')\n s.recv(9)\n")


@scenario("culprit", "two thousand threads that wake up twenty times a second", who=("swarm",), causes=("cpu", "wakeups", "use"))
def day_swarm(stage: Stage) -> None:
    stage.start(stage.program("swarm", "#include <pthread.h>\n#include <unistd.h>\n"
                              "static void *f(void *a) { for (;;) { usleep(50000); for (volatile int i = 0; i < 5000; i++); } }\n"
                              "int main() { pthread_attr_t s; pthread_t t; pthread_attr_init(&s); pthread_attr_setstacksize(&s, 65536);\n"
                              " for (int i = 0; i < 2000; i++) pthread_create(&t, &s, f, 0); f(0); }\n"))


@scenario("culprit", "a download over loopback is hashed", who=("http.server", "fetch", "curl", "sha256sum"), causes=("cpu", "io", "use"))
def day_download(stage: Stage) -> None:
    if shutil.which("curl") is None:
        raise Missing("no curl")
    stage.run("dd", "if=/dev/zero", "of=blob", "bs=1M", "count=300")
    stage.start(sys.executable, "-m", "http.server", "15297", "--bind", "127.0.0.1")
    time.sleep(1)
    stage.sh("fetch.sh", "while :; do curl -s http://127.0.0.1:15297/blob | sha256sum; done\n")


# -- nothing is wrong --------------------------------------------------------------------------------------------------

@scenario("benign", "a wanted build at nice 10 with a job for each core")
def fine_nice_build(stage: Stage) -> None:
    rule = "all: $(patsubst %,o%,$(shell seq 1 4000))\no%:\n\t@echo 'int f$*(){return 1;}' | cc -x c -c -o /dev/null -\n"
    (stage.directory / "Makefile").write_text(rule)
    stage.start("make", f"-j{cpus()}", "-s", nice=10)


@scenario("benign", "a backup at nice 19 and idle I/O priority reads a tree")
def fine_backup(stage: Stage) -> None:
    stage.start("ionice", "-c3", "tar", "cf", stage.directory / "backup.tar", "/usr/lib/python3", "/usr/share", nice=19)


@scenario("benign", "one second of work on a core, then nothing")
def fine_burst(stage: Stage) -> None:
    stage.python("save.py", "import time\nend = time.time() + 1\nwhile time.time() < end: pass\ntime.sleep(600)\n")


@scenario("benign", "an installer unpacks files at its own pace")
def fine_unpack(stage: Stage) -> None:
    (stage.directory / "tree").mkdir()
    stage.python("install.py", "import os, time\nfor n in range(100000):\n with open('tree/new', 'wb') as f: f.write(b'x' * 20000)\n"
                 " os.rename('tree/new', f'tree/{n % 500}')\n time.sleep(0.002)\n")


@scenario("benign", "a video player: 10 ms of work thirty times a second")
def fine_video(stage: Stage) -> None:
    stage.python("video.py", "import time\nwhile True:\n end = time.perf_counter() + 0.01\n while time.perf_counter() < end: pass\n"
                 " time.sleep(0.0233)\n")


@scenario("benign", "an idle Java server of 500 MB")
def fine_server(stage: Stage) -> None:
    code = "public class Idle { public static void main(String[] a) throws Exception { byte[] b = new byte[500 << 20]; Thread.sleep(600000); } }\n"
    stage.start("java", "-Xmx800m", stage.script("Idle.java", code))
    time.sleep(3)


@scenario("benign", "a log is followed, and lines come now and then")
def fine_tail(stage: Stage) -> None:
    stage.sh("logger.sh", "while :; do echo line >> log; sleep 0.3; done\n")
    time.sleep(1)
    stage.sh("follow.sh", "tail -f log | grep --line-buffered nothing\n")


@scenario("benign", "a short writer ends, its data is written back quietly")
def fine_save(stage: Stage) -> None:
    stage.python("save.py", WRITE, "file", "60")


@scenario("benign", "workers wait for their next job on a lock, and each gets it soon")
def fine_turns(stage: Stage) -> None:
    for _ in range(3):
        stage.python("worker.py", "import fcntl, time\nf = open('turn.lock', 'w')\nwhile True:\n fcntl.flock(f, fcntl.LOCK_EX)\n"
                     " time.sleep(0.3)\n fcntl.flock(f, fcntl.LOCK_UN)\n time.sleep(0.1)\n")
