"""What watching every process costs: rh-pipe beside a C floor and the tools people run today.

    python -m tests.bench                      everything, in 15 minutes at most
    python -m tests.bench --quick              100 and 1,000 processes, idle and active: under four minutes
    python -m tests.bench --long               more and longer rounds, an hour
    python -m tests.bench --readme             and write README's block on cost, the chart and the document it is of
    python -m tests.bench --compare tests/bench/overhead.json          beside the run of the README
    python -m tests.bench --sizes 1000 --loads idle --subjects floor,rh-pipe --rounds 9 --ticks-only

Run alone: `python -m tests.bench.lateness` (the beat while captures are taken), `tests.bench.slope` (memory over hours),
`tests.bench.darwin` (the macOS sampler beside a library that answers at once), `tests.bench.rules` (what rules cost).

How it measures, and why so:

- CPU time, not wall time: the process's CPU clock (nanoseconds, all threads, its children too) is read from outside, at
  a mark after the warm-up and at the end of the window, so that start-up does not count. A busy machine makes
  wall time worthless; CPU time suffers only through caches and shared cores.
- Alone: in a pid namespace of its own, so that the processes watched are those of the load, independent of what others do on the
  machine (they still share its CPUs). `--whole-machine` measures among all processes instead.
- In turns: each round runs every subject once on the same load, the next round in the reverse order. A ratio is taken
  within a round, never across rounds, and reported as the median with the lowest and the highest round.
- A tick is counted, not assumed, wherever the subject prints something for each (top, pidstat, the psutil loop), and the
  window goes from one to another. Elsewhere it is a whole number of periods of a subject that keeps its beat.
- System calls are counted in a turn of their own, because strace makes everything slow.
- The loads are C programs too, built on the spot from load.c: cheap, and they die with the benchmark.
- In the time that there is: round by round over all loads, so that every cell is measured as often as the others when the
  time is up; what was left out is reported, and what hangs is ended.
- With its circumstances: load average, and how many CPUs others kept busy. It reports when the machine is not quiet.

`build` compiles, `loads` starts what is watched, `subjects` knows the watchers, `measure` takes a turn, `syscalls` counts
under strace, `beats` listens to rh-pipe's socket, `startup` and `slope` do what no load is needed for; `run` puts them
in order. `report` makes the document of a run, from which `words`, `goals`, `chart`, `readme` and `compare` are made.
"""
