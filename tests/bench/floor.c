/*
 * floor: the least that watching every process can cost on Linux.
 *
 * It does the reads that rh-pipe must do, in C, and nothing else: no parsing beyond comparing bytes (and one number, the
 * count of threads, because that decides which file tells that a process ran), no scoring, no output while it runs.
 * What rh-pipe costs above it is the price of Python, scoring and keeping a history.
 *
 * Each tick:
 *   - the machine: /proc/stat, meminfo, pressure/cpu, pressure/memory, pressure/io, loadavg (descriptors kept open);
 *   - each process: one pread of its kept-open gate: schedstat of a single-threaded process, stat of any other;
 *     with --gate clock its CPU clock instead (clock_getcpuclockid(3)), which is cheaper and tells of all threads;
 *   - a process whose gate changed: pread of the kept-open stat, io, status (and schedstat where that was not the gate);
 *   - /proc is listed only when the last pid in loadavg changed or a process is gone; a new process is read once in
 *     full: stat, io, status, schedstat, cmdline, exe, cgroup;
 *   - with --sweep S: every process in full once in S seconds, an equal part of them each tick.
 *
 * usage: floor [--seconds N] [--hz H] [--sweep S] [--proc DIR] [--gate file|clock]
 * --gate clock asks about the pids of /proc, whatever DIR is. SIGTERM or SIGINT end it early. At the end one JSON object on stdout; exit 0, 2 on bad usage, 69 without /proc.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { GATE_BYTES = 512, PID_LIMIT = 4194304 /* the largest pid_max of the kernel */ };

struct process {
	int pid;
	int gate;                      /* schedstat, or stat when there is more than one thread */
	int stat, io, status, sched;   /* kept open once the process was seen running; -1 otherwise */
	int threads_many;
	int gate_length;
	char gate_text[GATE_BYTES];
};

static const char *const machine_names[] = {
	"loadavg", "stat", "meminfo", "pressure/cpu", "pressure/memory", "pressure/io"
};
enum { LOADAVG, MACHINE_FILES = sizeof machine_names / sizeof *machine_names };

static int by_clock;                    /* --gate clock */
static int root;                        /* descriptor of /proc: every path is relative to it */
static int machine[MACHINE_FILES];
static struct process *table;
static size_t count, room;
static int *slot_of;                    /* pid -> index in table + 1; 0 = not known */
static char buffer[1 << 16] __attribute__((aligned(16)));
static volatile sig_atomic_t stop;

static struct { long ticks, lists, full, active, first, gone, skipped; double late_max; } total;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

static int open_file(int pid, const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "%d/%s", pid, name);
	return openat(root, path, O_RDONLY | O_CLOEXEC);
}

static ssize_t read_kept(int fd)
{
	return fd < 0 ? -1 : pread(fd, buffer, sizeof buffer, 0);
}

static void read_once(int pid, const char *name)
{
	int fd = open_file(pid, name);
	if (fd >= 0) {
		read_kept(fd);
		close(fd);
	}
}

/* Field 20 of stat, counted from the last ')': a name may hold any byte. */
static int has_many_threads(ssize_t length)
{
	buffer[length] = 0;
	char *at = strrchr(buffer, ')');
	for (int field = 2; at && field < 20; field++)
		at = strchr(at + 1, ' ');
	return at && atol(at) > 1;
}

static void close_kept(struct process *p)
{
	int *kept[] = { &p->stat, &p->io, &p->status, &p->sched };
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
		if (*kept[i] >= 0)
			close(*kept[i]);
		*kept[i] = -1;
	}
}

static void keep_gate_text(struct process *p, ssize_t length)
{
	p->gate_length = length < 0 ? 0 : length > GATE_BYTES ? GATE_BYTES : (int)length;
	memcpy(p->gate_text, buffer, p->gate_length);
}

/* The time that all threads of a process have run, as bytes in the buffer; -1 when there is no such process. */
static ssize_t read_clock(int pid)
{
	return clock_gettime((clockid_t)(((unsigned)~pid << 3) | 2), (struct timespec *)buffer) ? -1
		: (ssize_t)sizeof(struct timespec);
}

static ssize_t read_gate(struct process *p)
{
	return by_clock ? read_clock(p->pid) : read_kept(p->gate);
}

/* The gate follows the number of threads: schedstat is the leader's alone. */
static int open_gate(struct process *p)
{
	if (by_clock) {
		p->gate = -1;
		keep_gate_text(p, read_gate(p));
		return p->gate_length ? 0 : -1;
	}
	p->gate = open_file(p->pid, p->threads_many ? "stat" : "schedstat");
	if (p->gate < 0 && !p->threads_many && errno == ENOENT)     /* a kernel without schedstat */
		p->gate = open_file(p->pid, "stat");
	if (p->gate < 0)
		return -1;
	keep_gate_text(p, read_kept(p->gate));
	return 0;
}

static void forget(size_t index)
{
	struct process *p = &table[index];
	close_kept(p);
	if (p->gate >= 0)
		close(p->gate);
	slot_of[p->pid] = 0;
	if (index != --count) {
		table[index] = table[count];
		slot_of[table[index].pid] = (int)index + 1;
	}
	total.gone++;
}

static void first_sight(int pid)
{
	if (count == room) {
		room = room ? room * 2 : 1024;
		table = realloc(table, room * sizeof *table);
		if (!table)
			exit(74);
	}
	struct process *p = &table[count];
	int fd = open_file(pid, "stat");
	if (fd < 0)
		return;
	ssize_t length = pread(fd, buffer, sizeof buffer - 1, 0);
	close(fd);
	if (length <= 0)
		return;
	*p = (struct process){ .pid = pid, .stat = -1, .io = -1, .status = -1, .sched = -1 };
	p->threads_many = has_many_threads(length);
	read_once(pid, "io");
	read_once(pid, "status");
	if (p->threads_many)
		read_once(pid, "schedstat");
	read_once(pid, "cmdline");
	read_once(pid, "cgroup");
	char path[64], target[4096];
	snprintf(path, sizeof path, "%d/exe", pid);
	if (readlinkat(root, path, target, sizeof target) < 0) { /* a kernel thread has none */ }
	if (open_gate(p)) {
		if (errno == EMFILE || errno == ENFILE)
			total.skipped++;
		return;
	}
	slot_of[pid] = (int)++count;
	total.first++;
}

static void list_processes(void)
{
	total.lists++;
	lseek(root, 0, SEEK_SET);
	static char names[1 << 15];
	long length;
	while ((length = syscall(SYS_getdents64, root, names, sizeof names)) > 0) {
		for (long at = 0; at < length;) {
			/* struct linux_dirent64: u64 ino, s64 off, u16 reclen, u8 type, char name[] */
			unsigned short size;
			memcpy(&size, names + at + 16, sizeof size);
			const char *name = names + at + 19;
			if (*name >= '1' && *name <= '9') {
				int pid = atoi(name);
				if (pid < PID_LIMIT && !slot_of[pid])
					first_sight(pid);
			}
			at += size;
		}
	}
}

/* With the clock as the gate: all four files, kept open. A pid that is another's by now has a clock, too, but no files:
 * it is met at the next list. */
static void full_read_by_clock(struct process *p, int keep)
{
	int *kept[] = { &p->stat, &p->io, &p->status, &p->sched };
	static const char *const names[] = { "stat", "io", "status", "schedstat" };
	for (int i = 0; i < 4; i++) {
		if (keep && *kept[i] < 0)
			*kept[i] = open_file(p->pid, names[i]);
		if (*kept[i] >= 0)
			read_kept(*kept[i]);
		else
			read_once(p->pid, names[i]);
	}
}

static void full_read(struct process *p, int keep)
{
	total.full++;
	if (by_clock) {
		full_read_by_clock(p, keep);
		return;
	}
	if (keep && p->status < 0) {
		/* when the gate is stat there is no need for a second descriptor of it */
		if (p->threads_many)
			p->sched = open_file(p->pid, "schedstat");
		else
			p->stat = open_file(p->pid, "stat");
		p->io = open_file(p->pid, "io");           /* fails for another user's process: stays -1 */
		p->status = open_file(p->pid, "status");
	}
	if (!keep && p->status < 0) {
		read_once(p->pid, p->threads_many ? "schedstat" : "stat");
		read_once(p->pid, "io");
		read_once(p->pid, "status");
		return;
	}
	read_kept(p->io);
	read_kept(p->status);
	if (p->threads_many) {
		read_kept(p->sched);
		return;
	}
	ssize_t length = p->stat < 0 ? -1 : pread(p->stat, buffer, sizeof buffer - 1, 0);
	if (length > 0 && has_many_threads(length)) {
		/* it started its first thread: from now on its gate is stat */
		close_kept(p);
		close(p->gate);
		p->threads_many = 1;
		if (open_gate(p))
			p->gate_length = 0;
	}
}

/* Returns how many processes are gone. */
static long read_processes(size_t sweep_from, size_t sweep_size)
{
	long gone = total.gone;
	for (size_t i = 0; i < count;) {
		struct process *p = &table[i];
		ssize_t length = read_gate(p);
		if (length <= 0) {              /* ESRCH: its pid may be another's already, this descriptor is not */
			forget(i);
			continue;
		}
		if (length > GATE_BYTES)
			length = GATE_BYTES;
		if (length != p->gate_length || memcmp(buffer, p->gate_text, length)) {
			keep_gate_text(p, length);
			total.active++;
			full_read(p, 1);
		} else if (i >= sweep_from && i < sweep_from + sweep_size) {
			full_read(p, 0);
		}
		i++;
	}
	return total.gone - gone;
}

/* The last pid of the namespace is the last word of loadavg. Returns 1 when it is another than in the tick before. */
static int read_machine(void)
{
	static char last_pid[32];
	int changed = 1;
	for (int i = 0; i < MACHINE_FILES; i++) {
		ssize_t length = machine[i] < 0 ? -1 : pread(machine[i], buffer, sizeof buffer - 1, 0);
		if (i != LOADAVG || length <= 0)
			continue;
		buffer[length] = 0;
		char *word = strrchr(buffer, ' ');
		if (word) {
			changed = strncmp(word, last_pid, sizeof last_pid - 1) != 0;
			snprintf(last_pid, sizeof last_pid, "%s", word);
		}
	}
	return changed;
}

static double seconds_of(struct timespec t)
{
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return seconds_of(t);
}

static void sleep_until(double when)
{
	struct timespec t = { (time_t)when, (long)((when - (double)(time_t)when) * 1e9) };
	while (!stop && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static void run(double seconds, double hz, double sweep)
{
	double start = now();
	size_t cursor = 0;
	for (long beat = 0; !stop && (double)beat / hz < seconds; beat++) {
		sleep_until(start + (double)beat / hz);
		if (stop)
			break;
		double late = now() - start - (double)beat / hz;
		if (late > total.late_max)
			total.late_max = late;
		int started = read_machine();
		size_t part = sweep > 0 ? (size_t)((double)count / (sweep * hz)) + 1 : 0;
		long gone = read_processes(cursor, part);
		cursor = cursor + part < count ? cursor + part : 0;
		if (started || gone)
			list_processes();
		total.ticks++;
	}
}

static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	double seconds = 10, hz = 3, sweep = 0;
	const char *proc = "/proc";
	for (int i = 1; i < argc; i += 2) {
		if (i + 1 == argc)
			goto usage;
		if (!strcmp(argv[i], "--seconds"))
			seconds = atof(argv[i + 1]);
		else if (!strcmp(argv[i], "--hz"))
			hz = atof(argv[i + 1]);
		else if (!strcmp(argv[i], "--sweep"))
			sweep = atof(argv[i + 1]);
		else if (!strcmp(argv[i], "--proc"))
			proc = argv[i + 1];
		else if (!strcmp(argv[i], "--gate") && !strcmp(argv[i + 1], "clock"))
			by_clock = 1;
		else if (!strcmp(argv[i], "--gate") && !strcmp(argv[i + 1], "file"))
			by_clock = 0;
		else
			goto usage;
	}
	if (hz <= 0 || seconds < 0 || sweep < 0)
		goto usage;
	raise_descriptor_limit();
	root = open(proc, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	slot_of = calloc(PID_LIMIT, sizeof *slot_of);       /* untouched pages of it cost nothing */
	if (root < 0 || !slot_of) {
		perror(proc);
		return 69;
	}
	for (int i = 0; i < MACHINE_FILES; i++)
		machine[i] = openat(root, machine_names[i], O_RDONLY | O_CLOEXEC);
	struct sigaction action = { .sa_handler = on_signal };
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);

	run(seconds, hz, sweep);

	struct timespec cpu;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	printf("{\"ticks\": %ld, \"cpu_seconds\": %.6f, \"processes\": %zu, \"full_reads\": %ld, \"active\": %ld, "
	       "\"started\": %ld, \"exited\": %ld, \"lists\": %ld, \"skipped\": %ld, \"late_max_s\": %.6f}\n",
	       total.ticks, seconds_of(cpu), count, total.full, total.active, total.first, total.gone, total.lists,
	       total.skipped, total.late_max);
	return 0;
usage:
	fprintf(stderr, "usage: floor [--seconds N] [--hz H] [--sweep S] [--proc DIR] [--gate file|clock]\n");
	return 2;
}
