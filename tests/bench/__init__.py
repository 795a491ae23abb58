"""What watching every process costs: rh-pipe beside a C floor and the tools people run today.

    python -m tests.bench                      everything; it says first how long that takes, up to an hour
    python -m tests.bench --quick              100 and 1,000 processes, idle and active, three minutes
    python -m tests.bench --sizes 1000 --subjects floor,rh-pipe --seconds 60 --json out.json

How it measures, and why so:

- CPU time, not wall time: the process's CPU clock (nanoseconds, all threads, its children too) is read from outside, at
  a mark after the warm-up and at the end of the window, so that start-up does not count. A busy machine makes
  wall time worthless; CPU time suffers only through caches and shared cores.
- Alone: in a pid namespace of its own, so that the processes watched are those of the load, whatever others do on the
  machine (they still share its CPUs). `--whole-machine` measures among all processes instead.
- In turns: each round runs every subject once on the same load, the next round in the reverse order. A ratio is taken
  within a round, never across rounds, and reported as the median with the lowest and the highest round.
- A tick is counted, not assumed, wherever the subject prints something for each (top, pidstat, the psutil loop).
  Elsewhere the window is a whole number of periods of a subject that keeps its beat.
- System calls are counted in a turn of their own, because strace makes everything slow.
- The loads are C programs too, built on the spot from load.c: cheap, and they die with the benchmark.

`build` compiles, `loads` starts what is watched, `subjects` knows the watchers, `measure` takes a turn, `report` and
`chart` show the outcome.
"""
