"""The bytes of /proc as values: every recorded file, every hostile name, and any bytes at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rogue_hunter.host.linux import parse
from rogue_hunter.host.linux.parse import Stat
from tests.tools.processes import FIXTURE, io_text, stat_line, status_text

NUMBER = st.integers(0, (1 << 63) - 1)


def recorded(name: str) -> bytes:
    return (FIXTURE / name).read_bytes()


# -- stat ------------------------------------------------------------------------------------------------------------


def test_stat_of_a_usual_process() -> None:
    """Every field that is used, from a recorded file."""
    assert parse.parse_stat(recorded("1000/stat"))[:16] == tuple(Stat(
        comm=b"python3",
        state=b"S",
        ppid=24482,
        session=15402,
        tty=0,
        flags=4194304,
        minflt=813,
        majflt=3,
        utime=8,
        stime=1,
        children=0,
        priority=20,
        nice=0,
        threads=1,
        start=426727,
        rss=2008,
    ))[:16]


@pytest.mark.parametrize(
    ("pid", "comm", "state"),
    [
        (2, b"kthreadd", b"S"),
        (1002, b"python3", b"Z"),
        (1003, b"python3", b"T"),
        (1004, b"d", b"D"),
        (1005, b"foo) Z 1 2 3", b"S"),
        (1006, b"a\nb) R 9 9", b"S"),
        (1007, b"\xff\xfe\x1b[2J)(", b"S"),
        (1011, b"old", b"S"),
    ],
)
def test_stat_of_hostile_names_and_states(pid: int, comm: bytes, state: bytes) -> None:
    """A name may hold parentheses, blanks, line feeds and any byte: the state follows the last parenthesis."""
    stat = parse.parse_stat(recorded(f"{pid}/stat"))
    assert (stat.comm, stat.state) == (comm, state)


def test_stat_of_a_kernel_thread() -> None:
    """PF_KTHREAD marks a kernel thread; an empty command line would not."""
    assert parse.parse_stat(recorded("2/stat")).flags & parse.PF_KTHREAD
    assert not parse.parse_stat(recorded("1000/stat")).flags & parse.PF_KTHREAD


@pytest.mark.parametrize("pid", [1012, 1013])
def test_stat_that_is_cut_short(pid: int) -> None:
    """Too few fields, or none, are a ValueError."""
    with pytest.raises(ValueError, match="cut short"):
        parse.parse_stat(recorded(f"{pid}/stat"))


@given(st.binary(max_size=64).filter(lambda b: b"\0" not in b), NUMBER, NUMBER, NUMBER, st.integers(-20, 19))
@example(b"", 0, 0, 0, 0)
@example(b") R 1 (", 1, 2, 3, 4)
@example(b"()()()())))(((()))()()", 1, 2, 3, 4)
def test_stat_with_any_name(comm: bytes, utime: int, start: int, rss: int, nice: int) -> None:
    """With any bytes in a process's name, name and numbers are read as they are."""
    stat = parse.parse_stat(
        stat_line(7, comm, b"D", ppid=3, utime=utime, cutime=4, cstime=5, start=start, rss=rss, nice=nice)
    )
    assert stat == Stat(comm, b"D", 3, 1, 0, 0, 0, 0, utime, 0, 9, 20, nice, 1, start, rss, policy=b"0")


def test_stat_cut_at_every_byte() -> None:
    """A stat cut anywhere is a ValueError, or it held all fields that are used (the last of them may lack digits)."""
    whole = stat_line(7, b"a) b", rss=123456)
    for cut in range(len(whole)):
        try:
            assert parse.parse_stat(whole[:cut])[:15] == parse.parse_stat(whole)[:15]
        except ValueError:
            assert len(whole[:cut].rpartition(b")")[2].split()) <= 22


# -- the other files -------------------------------------------------------------------------------------------------


def test_schedstat() -> None:
    """Nanoseconds on and waiting for a CPU."""
    assert parse.parse_schedstat(b"123456789 42 7\n") == (123456789, 42)
    run, wait = parse.parse_schedstat(recorded("1000/schedstat"))
    assert run > 0 and wait >= 0


def test_status() -> None:
    """All four user ids, the peak and both kinds of switches; what is missing is None."""
    assert parse.parse_status(recorded("1001/status"))[:4] == (b"\t1000\t1001\t1002\t1003", 8956 * 1024, 8, 4)
    assert parse.parse_status(recorded("2/status"))[:4] == (b"\t0\t0\t0\t0", None, 81, 0)
    assert parse.parse_status(status_text(5, None, 1, 2))[:4] == (b"\t5\t5\t5\t5", None, 1, 2)
    assert parse.parse_status(b"")[:4] == (b"", None, None, None)


def test_status_of_a_hostile_name() -> None:
    """The kernel escapes the line feeds of a name, so no name can pass for a key."""
    data = status_text(5).replace(b"Name:\tx", b"Name:\t\\nUid:\\t0 VmHWM: 9 voluntary_ctxt_switches: 9")
    assert parse.parse_status(data)[:4] == (b"\t5\t5\t5\t5", 4096, 0, 0)


def test_effective_uid() -> None:
    """A setuid program is its owner's, not that of the user who started it."""
    assert parse.effective_uid(b"\t1000\t0\t0\t0") == 0


def test_io() -> None:
    """Bytes from and to storage, not what went through the page cache."""
    assert parse.parse_io(io_text(11, 22)) == (11, 22)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, None),
        (0x8800, "pts/0"),
        (0x8803, "pts/3"),
        (0x8900, "pts/256"),
        (0x0401, "tty1"),
        (0x0440, "ttyS0"),
        (0x0501, "5:1"),
        (0x108800, "pts/256"),
    ],
)
def test_tty_name(number: int, name: str | None) -> None:
    """Major in bits 8 to 19, minor in bits 0 to 7 and 20 to 31."""
    assert parse.tty_name(number) == name


def test_cpu() -> None:
    """Busy without idle, iowait, steal and guest (which is a part of user); CPUs are counted, not believed."""
    data = b"cpu  10 20 30 400 50 6 7 8 9 9\ncpu0 1\ncpu1 1\ncpu7 1\nintr 5\nbtime 1700000000\n"
    assert parse.parse_cpu(data) == (73, 450, 8, 3, 1700000000)
    assert parse.parse_cpu(b"cpu  1 2 3 4\n") == (6, 4, 0, 1, None)
    assert parse.parse_cpu(recorded("stat")).cpus == 2


def test_meminfo() -> None:
    """Total and available in bytes; an old kernel does not know the latter."""
    assert parse.parse_meminfo(b"MemTotal:  1024 kB\nMemFree: 5 kB\nMemAvailable:  512 kB\n") == (1 << 20, 1 << 19)
    assert parse.parse_meminfo(b"MemTotal:  1024 kB\nMemFree: 5 kB\n") == (1 << 20, None)
    with pytest.raises(ValueError, match="MemTotal"):
        parse.parse_meminfo(b"MemFree: 5 kB\n")


def test_arcstats() -> None:
    """What the cache of ZFS holds above what it keeps in any case; a shrunk one gives nothing back."""
    head = b"13 1 0x01 147 39984 4500331 95000\nname                            type data\n"
    lines = b"hits  4 12\nc_min                           4    1000\nc_max 4 9\nsize                            4    4096\n"
    assert parse.parse_arcstats(head + lines) == 3096
    assert parse.parse_arcstats(head + b"size 4 10\nc_min 4 1000\n") == 0
    for cut in (b"", head, head + b"size 4 10\n", head + b"size 4 x\nc_min 4 1\n", head + b"xsize 4 1\nc_min 4 1\n"):
        with pytest.raises(ValueError, match="arcstats"):
            parse.parse_arcstats(cut)


def test_pressure() -> None:
    """Microseconds since boot; a line that is missing (cpu full, before 5.13) is unknown."""
    assert parse.parse_pressure(
        b"some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0 avg300=0 total=3\n"
    ) == (12, 3)
    assert parse.parse_pressure(b"some avg10=0.00 total=12\n") == (12, None)
    assert parse.parse_pressure(b"") == (None, None)


def test_last_pid() -> None:
    """The pid given out last is the last word of loadavg."""
    assert parse.parse_loadavg_last_pid(b"0.61 0.66 0.92 3/1234 56789\n") == b"56789"


@pytest.mark.parametrize(
    ("data", "argv"),
    [
        (b"", []),
        (b"\0\0\0", []),
        (b"a\0b c\0\0d\0", ["a", "b c", "", "d"]),
        (b"no end", ["no end"]),
        (b"title: x" + b"\0" * 50, ["title: x"]),
        (b"\xff\xfe\0", ["\\xff\\xfe"]),
        (b"\xed\xa0\x80\0", ["\\xed\\xa0\\x80"]),
        ("ü\0".encode(), ["ü"]),
    ],
)
def test_cmdline(data: bytes, argv: list[str]) -> None:
    """Arguments end with NUL; empty ones count; what is not UTF-8 becomes a visible escape, never a surrogate."""
    assert parse.split_cmdline(data) == argv


# -- any bytes -------------------------------------------------------------------------------------------------------

PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "stat": (parse.parse_stat, stat_line(7, b"a) b")),
    "schedstat": (parse.parse_schedstat, b"123 456 7\n"),
    "status": (parse.parse_status, status_text()),
    "io": (parse.parse_io, io_text(1, 2)),
    "uid": (parse.effective_uid, b"\t1\t2\t3\t4"),
    "cpu": (parse.parse_cpu, b"cpu  1 2 3 4 5 6 7 8\ncpu0 1\nbtime 1700000000\n"),
    "meminfo": (parse.parse_meminfo, b"MemTotal:  1024 kB\nMemAvailable:  512 kB\n"),
    "pressure": (parse.parse_pressure, b"some avg10=0.00 total=12\nfull avg10=0.00 total=3\n"),
    "loadavg": (parse.parse_loadavg_last_pid, b"0.61 0.66 0.92 3/1234 56789\n"),
    "cmdline": (parse.split_cmdline, b"a\0b\0"),
}


@pytest.mark.parametrize("name", PARSERS)
@given(st.data())
def test_any_bytes(name: str, data: st.DataObject) -> None:
    """A parser gives a value or raises ValueError, for any bytes and for real ones that were changed or cut."""
    parser, real = PARSERS[name]
    changed = bytearray(real)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 9))] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b" ", b"\n", b"-", b"9" * 30])
        )
    for raw in (bytes(changed), data.draw(st.binary(max_size=80))):
        with suppress(ValueError):
            parser(raw)


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b" ",
        b"\n",
        b"\0",
        b"x",
        b")",
        b"(",
        b"()",
        b"9" * 5000,
        b"\n\n\n",
        b"cpu \nbtime \n",
        b"\nUid:",
        b"\nVmHWM:",
        b"\nread_bytes:",
        b"MemTotal:",
        b"some total=",
        b"\nvoluntary_ctxt_switches:",
    ],
)
def test_known_junk(name: str, junk: bytes) -> None:
    """Empty files, lone keys and endless numbers are a value or a ValueError."""
    with suppress(ValueError):
        PARSERS[name][0](junk)


@given(st.binary(max_size=40))
def test_text_never_holds_a_surrogate(data: bytes) -> None:
    """Text from bytes can always be written as UTF-8, and what was UTF-8 is unchanged."""
    made = parse.text(data)
    made.encode()
    try:
        assert made == data.decode()
    except UnicodeDecodeError:
        assert "\\x" in made


@pytest.mark.parametrize(("at", "value"), [(1, 1 << 40), (1, -1 << 40), (21, 1 << 70), (21, -1), (21, 1 << 50)])
def test_a_second_look_takes_no_number_that_a_row_cannot_hold(at: int, value: int) -> None:
    """A recorded tree may hold anything; what others changed of a process is taken only if 64 bits hold it."""
    line = stat_line(9)
    assert parse.parse_touched(line) == (1000, 1, 100)
    fields = line.rpartition(b")")[2].split()
    fields[at] = b"%d" % value
    with pytest.raises(ValueError, match="beyond"):
        parse.parse_touched(b"9 (x) " + b" ".join(fields))


def test_vmstat_sums_over_zones_and_kinds_of_pages() -> None:
    """refaults of anonymous and file pages, direct reclaims of all zones; nothing of similar names."""
    data = (b"nr_free_pages 5\nallocstall_dma 1\nallocstall_normal 2\nworkingset_refault_anon 10\n"
            b"workingset_refault_file 20\nworkingset_restore_file 7\noom_kill 3\n")
    assert parse.parse_vmstat(data) == (30, 3, 3)
    assert parse.parse_vmstat(b"nr_free_pages 5\n") == (None, None, None)


def test_diskstats_counts_whole_disks_once() -> None:
    """Partitions and devices on top of others are left out."""
    line = b"   8  0 %b 10 0 100 50 5 0 60 25 0 40 75\n"
    data = b"".join(line % name for name in (b"sda", b"sda1", b"nvme0n1", b"nvme0n1p2", b"dm-0", b"loop3", b"zram0", b"vda",
                                         b"nvme0c1n1", b"zd16", b"drbd0", b"bcache0"))
    assert set(parse.parse_diskstats(data + b"8 0 sdb x\n")) == {b"sda", b"nvme0n1", b"vda"}
    assert parse.parse_diskstats(data)[b"sda"] == (15, 160 * 512, 75)


def test_policy_and_place_of_the_program() -> None:
    """Scheduling policy, and start_code with arg_start: missing where the kernel hides them or the line is cut off."""
    fields = stat_line(5).split()
    fields[25], fields[40], fields[47] = b"4096", b"3", b"8192"     # 26, 41 and 48 of proc_pid_stat(5)
    stat = parse.parse_stat(b" ".join(fields))
    assert (parse.POLICIES[stat.policy], stat.image) == ("batch", (b"4096", b"8192"))
    assert parse.parse_stat(stat_line(5)).image is None
    assert (parse.parse_stat(b" ".join(fields[:30])).policy, parse.parse_stat(b" ".join(fields[:30])).image) == (b"", None)


def test_divided_memory() -> None:
    """What may be shared (files, shared memory) and what was swapped out; older kernels do not divide it."""
    data = (b"Name:\tx\nUid:\t1\t1\t1\t1\nVmHWM:\t 9 kB\nVmRSS:\t 8 kB\nRssAnon:\t 1 kB\nRssFile:\t 4 kB\n"
            b"RssShmem:\t 3 kB\nVmSwap:\t 2 kB\nvoluntary_ctxt_switches:\t1\nnonvoluntary_ctxt_switches:\t2\n")
    status = parse.parse_status(data)
    assert (status.peak, status.shared, status.swap) == (9 * 1024, 7 * 1024, 2 * 1024)
    status = parse.parse_status(data.replace(b"RssFile", b"RssNone").replace(b"VmSwap", b"VmNone"))
    assert (status.shared, status.swap) == (None, None)


@pytest.mark.parametrize(("swap", "swap_pss", "shared"), [
    (142, 71, 142), (100, 10, 100), (100, 100, 0), (100, 90, 20), (0, 0, 0)])
def test_swapped_pages_are_shared_as_well(swap: int, swap_pss: int, shared: int) -> None:
    """KiB of two and of ten processes that share all of it, of one that shares nothing, of one that shares a part."""
    data = (b"00400000-7fff00000000 ---p 00000000 00:00 0    [rollup]\nRss:   50 kB\nPss:  20 kB\nPrivate_Clean:  10 kB\n"
            b"Private_Dirty:   30 kB\nSwap:  %d kB\nSwapPss:  %d kB\nLocked: 0 kB\n" % (swap, swap_pss))
    assert parse.parse_shared(data) == (10 + shared) * 1024
