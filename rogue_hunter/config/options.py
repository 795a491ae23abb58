"""Every option of the configuration: its default, the reason for it, and the bounds of its value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.schema.field import BANDS, STATES


def option(default: Any, doc: str, low: float | None = None, high: float | None = None,
           choices: tuple[str, ...] = ()) -> Any:
    """A field with its reason and the bounds of its value (inclusive)."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


def section(kind: type, doc: str) -> Any:
    """A field that is a table."""
    return field(default_factory=kind, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class System:
    """The beat, and the ticks kept in memory."""

    hz: float = option(3.0, "beats a second: a stall of one second spans three beats, and a tick costs 2 ms",
                       0.01, 100)
    ring_ticks: int = option(60, "ticks kept in memory: 20 s at 3 Hz, what happened before a pause", 2, 10_000)


@dataclass(frozen=True, slots=True)
class Bands:
    """Scores at which the bands of the share model begin, and the bands that start tracking and captures."""

    medium: int = option(30, "8 times the fair share", 1, 100)
    elevated: int = option(45, "22.6 times the fair share", 1, 100)
    high: int = option(60, "64 times the fair share", 1, 100)
    critical: int = option(80, "256 times the fair share", 1, 100)
    tracking: str = option("elevated", "band from which a process has an event", choices=BANDS[1:])
    forensics: str = option("critical", "band at which evidence is captured", choices=BANDS[1:])

    def of(self, score: float) -> str:
        """The band of a score."""
        if score < self.medium:
            return "low"
        return "medium" if score < self.elevated else "elevated" if score < self.high else \
            "high" if score < self.critical else "critical"

    def start(self, band: str) -> int:
        """The score at which a band begins."""
        return 0 if band == "low" else int(getattr(self, band))


@dataclass(frozen=True, slots=True)
class Share:
    """The share model: how many times its fair share of a resource does a process use?"""

    cpu_weight: float = option(1.0, "weight of a share of the CPUs", 0, 100)
    gpu_weight: float = option(0.5, "weight of a share of the GPU: it seldom makes others wait", 0, 100)
    memory_weight: float = option(1.0, "weight of a share of memory", 0, 100)
    disk_weight: float = option(1.0, "weight of a share of the disk traffic", 0, 100)
    wakeups_weight: float = option(0.5, "weight of a share of the wakeups: they cost power first", 0, 100)
    cpu_floor_cores: float = option(1.0, "CPU shares are computed against this many cores, or a quarter of all "
                                          "cores if that is more", 0.01, 4096)
    gpu_floor: float = option(1.0, "GPU shares are computed against at least this many GPUs", 0.01, 4096)
    disk_floor_bytes_per_s: float = option(100e6, "disk shares are computed against at least this traffic: that of a "
                                                   "slow SSD", 1, 1e12)
    wakeups_floor_per_s: float = option(2000.0, "wakeup shares are computed against at least this many: those of a "
                                                "busy desktop", 1, 1e9)
    memory_free_at: float = option(0.5, "available part of memory from which it is not scarce", 0.01, 1)
    memory_scarce_at: float = option(0.1, "available part of memory below which it is fully scarce", 0, 0.99)
    tau_s: float = option(1.0, "time constant of the averages of flows and pressure", 0.01, 600)
    fair_tau_s: float = option(5.0, "time constant of the average of active processes", 0.01, 600)
    active_within_s: float = option(10.0, "a process that ran within this time is active", 0.1, 3600)
    active_memory_bytes: int = option(10 << 20, "a process that holds this much memory is active", 0, 1 << 50)
    fair_minimum: int = option(100, "fair share is at most one part in this many, with few processes", 1, 100_000)
    pressure_gain: float = option(3.0, "how much more a share counts while others wait for the resource", 0, 100)
    core_times: float = option(32.0, "a whole core counts as at least this many fair shares (50 points), so that a "
                                     "busy loop is elevated on machines of any size", 0, 1000)
    nice_weight: float = option(0.5, "weight of CPU used at nice 15 or more, or with SCHED_IDLE: it yields to "
                                      "others", 0, 1)


@dataclass(frozen=True, slots=True)
class StressBands(Bands):
    """The bands of the stress model: points are sums of harm, not multiples of a fair share."""

    medium: int = option(20, "score at which the band medium begins", 1, 100)
    elevated: int = option(40, "score at which the band elevated begins", 1, 100)
    high: int = option(50, "score at which the band high begins", 1, 100)
    critical: int = option(70, "score at which the band critical begins", 1, 100)
    forensics: str = option("high", "band at which evidence is captured", choices=BANDS[1:])


@dataclass(frozen=True, slots=True)
class Stress:
    """The stress model: four categories of harm."""

    blocking_weight: float = option(0.40, "weight of what makes others wait", 0, 1)
    contention_weight: float = option(0.30, "weight of fighting for the CPU", 0, 1)
    pressure_weight: float = option(0.20, "weight of load on the system", 0, 1)
    efficiency_weight: float = option(0.10, "weight of work wasted", 0, 1)
    pageins_per_s: float = option(100.0, "page-ins that count in full", 1e-9)
    disk_bytes_per_s: float = option(100e6, "disk traffic that counts in full", 1e-9)
    faults_per_s: float = option(10e3, "page faults that count in full", 1e-9)
    run_delay_ms_per_s: float = option(100.0, "run delay that counts in full: 10 % of the time", 1e-9)
    context_switches_per_s: float = option(10e3, "context switches that count in full", 1e-9)
    cpu_percent: float = option(100.0, "CPU use that counts in full: one core", 1e-9)
    qos_interactive_ms_per_s: float = option(100.0, "interactive CPU time that counts in full", 1e-9)
    memory_bytes: float = option(float(8 << 30), "memory that counts in full: 8 GiB", 1e-9)
    wakeups_per_s: float = option(1e3, "wakeups that count in full", 1e-9)
    syscalls_per_s: float = option(100e3, "system calls that count in full", 1e-9)
    mach_messages_per_s: float = option(10e3, "Mach messages that count in full", 1e-9)
    threads: float = option(100.0, "threads that count in full", 1e-9)
    ipc_minimum: float = option(0.5, "instructions a cycle below which work is wasted", 1e-9)
    idle: float = option(0.5, "multiplier of an idle process", 0, 1)
    sleeping: float = option(0.5, "multiplier of a sleeping process", 0, 1)
    stopped: float = option(0.7, "multiplier of a stopped process", 0, 1)
    halted: float = option(0.8, "multiplier of a halted process", 0, 1)
    defunct: float = option(0.9, "multiplier of a defunct process", 0, 1)
    running_percent: float = option(1.0, "CPU use from which a process counts as running", 0, 100)
    bands: StressBands = section(StressBands, "bands of the stress model")


@dataclass(frozen=True, slots=True)
class Scoring:
    """Which model, and its numbers."""

    model: str = option("share", "the model of rh-pipe, and the default of rh-score", choices=("share", "stress"))
    share: Share = section(Share, "the share model")
    stress: Stress = section(Stress, "the stress model")


@dataclass(frozen=True, slots=True)
class RogueSelection:
    """Which processes are shown, kept in the ring and sent to clients. All are scored, then selected."""

    top: int = option(10, "the highest scores above 0", 0, 1000)
    per_category: int = option(3, "stress model: the highest of each category", 0, 1000)
    category_minimum: float = option(50.0, "stress model: a category counts from this score", 0, 100)
    per_state: int = option(5, "the first of each of these states", 0, 1000)
    states: tuple[str, ...] = option(("defunct", "uninterruptible"), "states that are always shown",
                                      choices=STATES)


@dataclass(frozen=True, slots=True)
class Tracking:
    """When an event begins and ends."""

    enter_s: float = option(2.0, "an event begins when the score has been at or above the tracking band so long: "
                                 "starting a program pegs a core for a moment", 0, 3600)
    enter_critical_s: float = option(1.0, "the same for the critical band", 0, 3600)
    exit_margin: int = option(5, "an event ends when the score is this much below the tracking band", 0, 100)
    exit_ticks: int = option(15, "and stays there for this many ticks in a row: 5 s; "
                                "and for as long as it had lasted, a minute at most", 1, 100_000)
    checkpoint_s: float = option(30.0, "time between snapshots while an event lasts", 0.1, 86_400)


@dataclass(frozen=True, slots=True)
class Pause:
    """What counts as a pause of the machine."""

    late_s: float = option(0.5, "a beat that is this late is a pause; below 1 s only if the cause is known", 0.05,
                           3600)
    full_ms_per_s: float = option(800.0, "all tasks waiting for memory or storage at this rate is a stall", 1, 1000)
    full_s: float = option(1.0, "a stall that lasts this long is a pause", 0.1, 3600)
    longest_s: float = option(60.0, "a longer stall is reported in parts of this length", 1, 86_400)
    culprits: int = option(5, "processes named for each pause", 1, 100)


@dataclass(frozen=True, slots=True)
class Minutes:
    """The history: one row a minute of the machine, and the top commands."""

    top: int = option(5, "commands kept a minute by each of cpu, memory, disk, gpu, wakeups and score", 1, 1000)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long history is kept."""

    days: float = option(30.0, "history that ended longer ago is pruned", 0.01, 36_500)
    slice_hours: float = option(48.0, "slices of 5 s, waits and limits are kept this long, 20 MB a day at most; "
                                      "the minutes and hours made from them stay, 1 to 6 MB a day", 0.1, 100_000)
    max_size_mb: int = option(500, "the oldest events are pruned until the file is this small", 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class Store:
    """The database."""

    path: str = option("", "database file; empty: rogue-hunter.db in the data directory")
    queue_ticks: int = option(1000, "ticks of records that are queued while the disk is full or locked", 1, 1_000_000)
    retry_s: float = option(2.0, "time between retries while the disk is full or locked", 0.01, 3600)
    state_every_s: float = option(10.0, "time between updates of the table daemon_state", 0.1, 3600)


@dataclass(frozen=True, slots=True)
class Socket:
    """The socket on which rh-pipe publishes its ticks."""

    enabled: bool = option(True, "serve it; rh-tail and rh-prune use it")
    path: str = option("", "the socket; empty: rh-pipe.sock in the runtime directory")
    clients: int = option(32, "clients at once", 1, 1000)
    queue_ticks: int = option(16, "ticks queued for a slow client: 5 s at 3 Hz; older ones are dropped, which is "
                                  "reported to the client", 1, 10_000)
    stall_s: float = option(30.0, "a client that reads nothing for this long is disconnected", 0.1, 3600)


@dataclass(frozen=True, slots=True)
class Log:
    """The log of rh-pipe: one JSON line an entry."""

    enabled: bool = option(True, "write it; warnings always go to standard error")
    path: str = option("", "the file; empty: rh-pipe.log in the state directory")
    level: str = option("info", "lowest level that is written", choices=("debug", "info", "warning", "error"))
    max_mb: float = option(5.0, "the file is rotated at this size", 0.001, 10_000)
    keep: int = option(3, "rotated files that are kept", 0, 100)


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of the CPU use of rh-pipe itself."""

    cpu_percent: float = option(5.0, "of one core, averaged over over_s: 17 ms a beat at 3 Hz, of which 1,000 idle "
                                     "processes take 3 to 10; 0: no limit", 0, 100)
    over_s: float = option(60.0, "over the limit for this long: the rate of beats is halved; below half of it for "
                                 "this long: doubled again", 1, 86_400)
    slowest: int = option(8, "the rate is divided by at most this: 8 is one beat in 2.7 s at 3 Hz", 1, 1024)


@dataclass(frozen=True, slots=True)
class Power:
    """Power and sleep."""

    keep_awake: bool = option(False, "keep the machine from idle sleep while rh-pipe runs (caffeinate, "
                                     "systemd-inhibit); off, because a monitor must not change the machine")


@dataclass(frozen=True, slots=True)
class Forensics:
    """Captures: when, how many, how much they may read, what is kept."""

    enabled: bool = option(True, "capture evidence when an event reaches the forensics band, and at a pause")
    debounce_s: float = option(2.0, "seconds between two captures: a score that hovers crosses its band often",
                              0, 3600)
    same_trouble_s: float = option(180.0, "seconds between two captures of the same unit or command, or of pauses of "
                                          "the same cause", 0, 3600)
    per_hour: int = option(20, "captures an hour: each costs up to a second of a CPU and a megabyte", 0, 10_000)
    per_identity_per_hour: int = option(3, "captures an hour of the same unit, command or cause", 0, 10_000)
    cpu_percent: float = option(1.0, "CPU that captures may use, in percent of one core, averaged over minutes; 0: no "
                                     "limit", 0, 100)
    targets: int = option(5, "processes with the highest scores that are captured with the culprit", 0, 100)
    processes: int = option(32, "processes of one capture, including those that block others", 1, 1000)
    threads: int = option(256, "threads of one process that are read; a thread costs 0.1 ms", 1, 100_000)
    rounds: int = option(3, "times that the threads are read: a wait seen each time is stuck", 1, 100)
    round_s: float = option(0.1, "seconds between two readings", 0, 10)
    process_timeout_s: float = option(2.0, "seconds for one process: reading a stuck one can block", 0.1, 60)
    timeout_s: float = option(60.0, "seconds for a whole capture; decoding a tailspin takes 5 to 20", 1, 600)
    log_seconds: float = option(60.0, "seconds of log before the capture", 0, 3600)
    log_entries: int = option(500, "log entries of one capture; warnings and errors are kept first", 0, 100_000)
    journal: bool = option(True, "read the systemd journal, if there is one")
    kernel_log: bool = option(True, "read the kernel log, if permitted")
    keep_idle: bool = option(False, "also keep threads that neither ran nor waited for another process")
    tailspin_file: str = option("/var/db/rogue-hunter/capture.tailspin",
                                 "where tailspin saves; the sudoers rule names exactly this file")
    keep_raw: bool = option(False, "keep a copy of the tailspin file of each capture (25 MB)")
    raw_directory: str = option("", "where copies are kept; empty: captures below the state directory")
    raw_quota_mb: int = option(500, "megabytes of copies; the oldest are deleted beyond it", 1, 1_000_000)
    free_mb: int = option(1000, "megabytes that must stay free on the disk; otherwise no copy is kept", 0, 1_000_000)


@dataclass(frozen=True, slots=True)
class Recorder:
    """The flight recorder of Linux."""

    enabled: bool = option(True, "record which process runs on each CPU, and where in its code, so that a pause shows "
                                 "what ran before rh-pipe could; it costs up to 0.15 % of each CPU and 3 MB, and needs "
                                 "permission for perf events")
    switches_per_s: int = option(1800, "a CPU that switches more often, over 10 s, is recorded by samples only for a "
                                       "minute: a switch costs 0.24 us, 49 samples up to 1 ms a second in a virtual "
                                       "machine, and both together are to stay below 0.15 %", 0, 1_000_000)
    per_hour: int = option(60, "pauses and captures an hour of which stacks are stored: each takes 0.3 s of a CPU at "
                               "nice 19 and 20 KB", 0, 10_000)


MODES = ("observe", "armed")


@dataclass(frozen=True, slots=True)
class Reap:
    """Whether rh-pipe may terminate processes, and the audit file."""

    mode: str = option("observe", "observe: matches are reported and stored; armed: rh-pipe also terminates the "
                                  "processes, without asking", choices=MODES)
    prove: bool = option(False, "at a pause for want of a CPU, prove by experiment whether the first culprit makes the "
                                "process wait that waited most: it is stopped for 0.2 s, 10 times (see rh-reap prove)")
    audit: str = option("", "the audit file of rh-pipe and rh-reap; empty: logging.file of the rules, else audit.log "
                            "in the state directory")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured."""

    system: System = section(System, "the beat and memory")
    bands: Bands = section(Bands, "bands of the share model")
    scoring: Scoring = section(Scoring, "scoring")
    rogue_selection: RogueSelection = section(RogueSelection, "what is shown and kept in memory")
    tracking: Tracking = section(Tracking, "events")
    pause: Pause = section(Pause, "pauses of the machine")
    minutes: Minutes = section(Minutes, "the history by minute")
    forensics: Forensics = section(Forensics, "captures of evidence, at the forensics band and at a pause")
    recorder: Recorder = section(Recorder, "the flight recorder: stacks from before a pause")
    reap: Reap = section(Reap, "what rh-pipe does with the matches of the rules")
    retention: Retention = section(Retention, "pruning")
    store: Store = section(Store, "the database")
    socket: Socket = section(Socket, "the socket of rh-pipe")
    log: Log = section(Log, "the log of rh-pipe")
    budget: Budget = section(Budget, "limits of the CPU use of rh-pipe itself")
    power: Power = section(Power, "power and sleep")

    def bands_of(self, model: str) -> Bands:
        """The bands of a scoring model."""
        return self.scoring.stress.bands if model == "stress" else self.bands
