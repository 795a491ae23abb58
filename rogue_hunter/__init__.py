"""rogue-hunter: find the process that makes the machine pause, prove it, and stop it safely.

The rooms of the package. Each imports from itself and from those above it in this list, never from one below.

    text        text for people and from people: formatting, time expressions, redaction of secrets
    schema      every record and every field, declared once
    config      every option with its default, its reason and its bounds; TOML
    stream      the tick, stages and pipelines, the wire format, the clock
    host        reading the operating system: linux, macos
    sampling    from readings of the host to complete ticks
    scoring     two models of how rogue a process is
    tracking    events, pauses, minutes, the ring of the last ticks
    rules       which processes are runaway, and what to do about each
    reaper      ending those processes, safely
    capture     evidence: threads, waits, stacks, logs; reports of macOS; the wait graph and who blocks whom
    recorder    the flight recorder of Linux: perf rings, symbols, stacks from before a pause
    store       the SQLite database: tables, migrations, the writer, pruning
    verdict     what was short, who used it, who waited
    report      queries, evidence, sentences and views of rh-report
    daemon      rh-pipe: its stages in order, its loop, its socket, its services
    service     rh-pipe under systemd and launchd
    fleet       many machines: rh-ship and rh-hub, over NATS into DuckDB or ClickHouse
    tui         rh-top: the live view
    commandline what all commands share: how one runs, and their common options
    cli         one click command a module

At the top: paths (where files lie), files (locks, private and trusted files), worker (a thread with a queue),
metrics (the Prometheus page), bench (rh-bench), __main__ (python -m rogue_hunter).
"""

__version__ = "0.1.0"

OWN_MARK = "rogue-hunter"
"""Name of the anonymous file that each command keeps open; by it the sampler knows rogue-hunter's own processes."""
