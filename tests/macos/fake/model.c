/* The scripted machine: reads the script, keeps the clock, counts the calls. See tests/darwin/script.md for the words. */
#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_PROCESSES 4096
#define MAX_EVENTS 4096
#define MAX_CALLS 65536

struct event { double at; char *target, *words; };
struct call { const char *function; int pid, beat, count; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct machine machine;
static struct process *processes;
static int process_count;
static struct event events[MAX_EVENTS];
static int event_count, events_done;
static struct call *calls;
static int call_count;
static double manual_time;
static int real_clock;
static struct timespec epoch;
static pthread_t beat_thread;
static int beat_known;
static unsigned last_qos;
static char problem[256];

static const char *const counter_names[COUNTERS] = {
	"user", "system", "delay", "child", "qos", "wakeups", "pageins", "faults", "csw", "mach", "unix", "sent",
	"received", "read", "written", "instructions", "cycles", "energy", "footprint", "peak",
};

static double clock_now(void)
{
	struct timespec now;

	if (!real_clock)
		return manual_time;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - epoch.tv_sec) + (double)(now.tv_nsec - epoch.tv_nsec) / 1e9;
}

static double slope_at(const struct slope *s, double t)
{
	return s->base + s->rate * (t > s->since ? t - s->since : 0);
}

/* "10", "10+0.5/s", "+0.5/s" (goes on from what it is), "10+0/s" */
static void set_slope(struct slope *s, const char *word, double t)
{
	double value = slope_at(s, t), rate = 0;
	char *end;

	if (*word != '+') {
		value = strtod(word, &end);
		word = end;
	}
	if (*word == '+' || *word == '-') {
		rate = strtod(word, &end);
		if (strcmp(end, "/s") != 0)
			snprintf(problem, sizeof problem, "not a rate: %s", word);
	}
	s->base = value;
	s->rate = rate;
	s->since = t;
}

static void copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from);
}

static int status_number(const char *word)
{
	static const char *const names[] = { "", "idle", "run", "sleep", "stop", "zombie" };

	for (int i = 1; i < 6; i++)
		if (strcmp(word, names[i]) == 0)
			return i;
	return atoi(word);
}

static void set_process(struct process *p, const char *key, const char *value, double t)
{
	for (int i = 0; i < COUNTERS; i++)
		if (strcmp(key, counter_names[i]) == 0) {
			set_slope(&p->counters[i], value, t);
			return;
		}
	if (!strcmp(key, "pid")) p->pid = strcmp(value, "self") ? atoi(value) : (int)getpid();
	else if (!strcmp(key, "ppid")) p->ppid = atoi(value);
	else if (!strcmp(key, "uid")) p->uid = strcmp(value, "self") ? atoi(value) : (int)getuid();
	else if (!strcmp(key, "comm")) copy(p->comm, sizeof p->comm, value);
	else if (!strcmp(key, "name")) copy(p->name, sizeof p->name, value);
	else if (!strcmp(key, "path")) copy(p->path, sizeof p->path, value);
	else if (!strcmp(key, "args")) copy(p->args, sizeof p->args, value);
	else if (!strcmp(key, "tstates")) copy(p->tstates, sizeof p->tstates, value);
	else if (!strcmp(key, "from")) p->from = atof(value);
	else if (!strcmp(key, "to")) p->to = atof(value);
	else if (!strcmp(key, "start")) p->start = atof(value);
	else if (!strcmp(key, "zombie")) p->zombie = atoi(value);
	else if (!strcmp(key, "gone")) p->gone = atoi(value);
	else if (!strcmp(key, "status")) p->status = status_number(value);
	else if (!strcmp(key, "threads")) p->threads = atoi(value);
	else if (!strcmp(key, "running")) p->running = atoi(value);
	else if (!strcmp(key, "priority")) p->priority = atoi(value);
	else if (!strcmp(key, "nice")) p->nice = atoi(value);
	else if (!strcmp(key, "denied")) p->denied = atoi(value);
	else if (!strcmp(key, "tdev")) p->tdev = (unsigned)strtoul(value, NULL, 0);
	else if (!strcmp(key, "uniqueid")) p->uniqueid = strtoull(value, NULL, 0);
	else if (!strcmp(key, "idversion")) p->idversion = atoi(value);
	else if (!strcmp(key, "exec")) p->exec = atoi(value);
	else if (!strcmp(key, "ignores")) p->ignores = atoi(value);
	else if (!strcmp(key, "cpu")) p->real_cpu = !strcmp(value, "real");
	else snprintf(problem, sizeof problem, "no such word of a process: %s", key);
}

static void set_machine(const char *key, const char *value, double t)
{
	if (!strcmp(key, "timebase")) sscanf(value, "%u/%u", &machine.numer, &machine.denom);
	else if (!strcmp(key, "tbfrequency")) machine.tbfrequency = strtoull(value, NULL, 0);
	else if (!strcmp(key, "counters")) machine.counter_frequency = atof(value);
	else if (!strcmp(key, "ncpu")) machine.ncpu = atoi(value);
	else if (!strcmp(key, "memsize")) machine.memsize = strtoull(value, NULL, 0);
	else if (!strcmp(key, "pagesize")) machine.pagesize = strtoull(value, NULL, 0);
	else if (!strcmp(key, "flavors")) machine.flavors = atoi(value);
	else if (!strcmp(key, "uniqids")) machine.uniqids = atoi(value);
	else if (!strcmp(key, "wall")) machine.wall = atof(value);
	else if (!strcmp(key, "uptime")) machine.uptime = atof(value);
	else if (!strcmp(key, "asleep")) machine.asleep += atof(value);
	else if (!strcmp(key, "bootuuid")) copy(machine.bootuuid, sizeof machine.bootuuid, strcmp(value, "none") ? value : "");
	else if (!strcmp(key, "hostname")) copy(machine.hostname, sizeof machine.hostname, value);
	else if (!strcmp(key, "free")) machine.free = (unsigned)atol(value);
	else if (!strcmp(key, "external")) machine.external = (unsigned)atol(value);
	else if (!strcmp(key, "purgeable")) machine.purgeable = (unsigned)atol(value);
	else if (!strcmp(key, "speculative")) machine.speculative = (unsigned)atol(value);
	else if (!strcmp(key, "others")) machine.others = atof(value);
	else if (!strcmp(key, "busy")) set_slope(&machine.busy, value, t);
	else if (!strcmp(key, "clock")) real_clock = !strcmp(value, "real");
	else snprintf(problem, sizeof problem, "no such word of the machine: %s", key);
}

/* key=value key=value ...; args= takes the rest of the line. `p` NULL: the machine. */
static void apply(struct process *p, char *words, double t)
{
	char *word = words;

	while (*word) {
		char *end, *value;

		while (*word == ' ')
			word++;
		if (!*word)
			break;
		end = strncmp(word, "args=", 5) ? strchrnul(word, ' ') : word + strlen(word);
		if (*end)
			*end++ = 0;
		value = strchr(word, '=');
		if (value == NULL) {
			snprintf(problem, sizeof problem, "no '=' in %s", word);
			return;
		}
		*value++ = 0;
		if (p)
			set_process(p, word, value, t);
		else
			set_machine(word, value, t);
		word = end;
	}
}

static struct process *by_id(const char *id)
{
	for (int i = 0; i < process_count; i++)
		if (strcmp(processes[i].id, id) == 0)
			return &processes[i];
	return NULL;
}

static void catch_up(void)
{
	double t = clock_now();

	for (; events_done < event_count && events[events_done].at <= t; events_done++) {
		struct event *e = &events[events_done];
		struct process *p = strcmp(e->target, "machine") ? by_id(e->target) : NULL;

		if (p == NULL && strcmp(e->target, "machine"))
			snprintf(problem, sizeof problem, "no such process: %s", e->target);
		else
			apply(p, e->words, e->at);
	}
}

static void add_process(char *id, char *words)
{
	struct process *p = &processes[process_count++];

	memset(p, 0, sizeof *p);
	copy(p->id, sizeof p->id, id);
	p->pid = 1000 + process_count;
	p->ppid = 1;
	p->uid = 501;
	p->to = 1e18;
	p->status = 2;
	p->threads = 1;
	p->priority = 31;
	p->tdev = 0xffffffffu;
	p->uniqueid = 5000 + (unsigned long long)process_count;
	p->idversion = 7000 + process_count;
	p->start = -3600;
	copy(p->comm, sizeof p->comm, id);
	apply(p, words, 0);
}

static int compare_events(const void *a, const void *b)
{
	double x = ((const struct event *)a)->at, y = ((const struct event *)b)->at;

	return x < y ? -1 : x > y;
}

static void read_line(char *line)
{
	char *rest = line + strcspn(line, " ");

	if (*rest)
		*rest++ = 0;
	if (!strcmp(line, "machine")) {
		apply(NULL, rest, 0);
	} else if (!strcmp(line, "process") && process_count < MAX_PROCESSES) {
		char *words = rest + strcspn(rest, " ");

		if (*words)
			*words++ = 0;
		add_process(rest, words);
	} else if (!strcmp(line, "at") && event_count < MAX_EVENTS) {
		struct event *e = &events[event_count++];
		char *words;

		e->at = strtod(rest, &rest);
		rest += strspn(rest, " ");
		words = rest + strcspn(rest, " ");
		if (*words)
			*words++ = 0;
		e->target = strdup(rest);
		e->words = strdup(words);
	} else {
		snprintf(problem, sizeof problem, "no such line: %s", line);
	}
}

/* Begin anew with the script in `text`. Gives what is wrong with it, or an empty string. */
const char *fake_load(const char *text)
{
	static char line[8192];

	pthread_mutex_lock(&lock);
	if (processes == NULL) {
		processes = calloc(MAX_PROCESSES, sizeof *processes);
		calls = calloc(MAX_CALLS, sizeof *calls);
	}
	process_count = event_count = events_done = call_count = beat_known = real_clock = 0;
	manual_time = 0;
	problem[0] = 0;
	last_qos = 0;
	memset(&machine, 0, sizeof machine);
	machine.numer = 125;
	machine.denom = 3;
	machine.tbfrequency = 24000000;
	machine.ncpu = 8;
	machine.memsize = 17179869184ull;
	machine.pagesize = 16384;
	machine.flavors = 6;
	machine.uniqids = 1;
	machine.uptime = 100000;
	copy(machine.bootuuid, sizeof machine.bootuuid, "6F1C3A52-0000-4000-8000-0123456789AB");
	copy(machine.hostname, sizeof machine.hostname, "fake.local");
	clock_gettime(CLOCK_MONOTONIC, &epoch);
	while (*text && !problem[0]) {
		size_t length = strcspn(text, "\n");

		if (length >= sizeof line) {
			snprintf(problem, sizeof problem, "line too long");
			break;
		}
		memcpy(line, text, length);
		line[length] = 0;
		text += length + (text[length] != 0);
		if (line[strspn(line, " ")] && line[0] != '#')
			read_line(line);
	}
	if (machine.wall == 0) {
		struct timespec now;

		clock_gettime(CLOCK_REALTIME, &now);
		machine.wall = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
	}
	if (machine.counter_frequency == 0)
		machine.counter_frequency = machine.tbfrequency ? (double)machine.tbfrequency
		                                                : 1e9 * machine.denom / machine.numer;
	qsort(events, (size_t)event_count, sizeof *events, compare_events);
	pthread_mutex_unlock(&lock);
	return problem;
}

__attribute__((constructor)) static void from_environment(void)
{
	const char *path = getenv("FAKE_LIBPROC_SCRIPT");
	static char text[1 << 20];
	FILE *file;

	if (path == NULL || (file = fopen(path, "r")) == NULL) {
		fake_load("");
		return;
	}
	text[fread(text, 1, sizeof text - 1, file)] = 0;
	fclose(file);
	if (*fake_load(text)) {
		fprintf(stderr, "fake libproc: %s: %s\n", path, problem);
		_exit(99);
	}
}

/* ---- for the tests ---- */

void fake_advance(double seconds)
{
	pthread_mutex_lock(&lock);
	manual_time += seconds;
	pthread_mutex_unlock(&lock);
}

/* Calls of `function` (NULL: of all) about `pid` (-1: any), by the thread of the beat (1), the others (0), all (-1). */
int fake_calls(const char *function, int pid, int beat)
{
	int sum = 0;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < call_count; i++)
		if ((function == NULL || !strcmp(calls[i].function, function)) && (pid < 0 || calls[i].pid == pid)
		    && (beat < 0 || calls[i].beat == beat))
			sum += calls[i].count;
	pthread_mutex_unlock(&lock);
	return sum;
}

void fake_reset_calls(void)
{
	pthread_mutex_lock(&lock);
	call_count = 0;
	pthread_mutex_unlock(&lock);
}

/* The signal that process `id` got as its `index`th, 0 when there was none. */
int fake_signal_of(const char *id, int index)
{
	struct process *p = by_id(id);

	return p && index < p->signal_count ? p->signals[index] : 0;
}

double fake_wall(void) { return fake_wall_seconds(); }
unsigned fake_last_qos(void) { return last_qos; }
const char *fake_problem(void) { return problem; }

/* ---- for apple.c ---- */

void fake_enter(const char *function, int pid)
{
	int i, beat;

	pthread_mutex_lock(&lock);
	catch_up();
	beat = beat_known && pthread_equal(beat_thread, pthread_self());
	for (i = 0; i < call_count; i++)
		if (calls[i].function == function && calls[i].pid == pid && calls[i].beat == beat)
			break;
	if (i == call_count && call_count < MAX_CALLS)
		calls[call_count++] = (struct call){ function, pid, beat, 0 };
	if (i < MAX_CALLS)
		calls[i].count++;
}

void fake_signal(struct process *p, int number)
{
	if (p->signal_count < 8)
		p->signals[p->signal_count++] = number;
	if (number == 9 || (number == 15 && !p->ignores))
		p->to = clock_now();
}

void fake_leave(void) { pthread_mutex_unlock(&lock); }
void fake_fail(int number) { errno = number; }
void fake_qos(unsigned qos) { last_qos = qos; }
struct machine *fake_machine(void) { return &machine; }
double fake_time(void) { return clock_now(); }
double fake_wall_seconds(void) { return machine.wall + clock_now() + machine.asleep; }
double fake_value(const struct process *p, enum counter c) { return slope_at(&p->counters[c], clock_now()); }
double fake_busy_at(double time) { return slope_at(&machine.busy, time); }

/* In each second the first `quota` requests of all programs get a fresh answer; later ones that of the last of them. */
double fake_fresh(int kind)
{
	static struct { long second; int ours; double last; } seen[2];
	double t = clock_now(), begin = (double)(long)t;
	int quota = 2 + (int)((unsigned long)(long)t * 2654435761u % 9);

	if (seen[kind].second != (long)t || seen[kind].last > t) {
		seen[kind].second = (long)t;
		seen[kind].ours = 0;
		seen[kind].last = begin;
	}
	seen[kind].ours++;
	if (seen[kind].ours + (int)((t - begin) * machine.others) <= quota)
		return seen[kind].last = t;
	/* The others' share of the quota is used up at this time of the second. */
	if (machine.others > 0 && begin + (quota - seen[kind].ours) / machine.others > seen[kind].last)
		seen[kind].last = begin + (quota - seen[kind].ours) / machine.others;
	return seen[kind].last < t ? seen[kind].last : t;
}

static struct { void *address; unsigned long size; } blocks[64];

void *fake_allocate(unsigned long size)
{
	for (int i = 0; i < 64; i++)
		if (blocks[i].address == NULL) {
			blocks[i].size = size;
			return blocks[i].address = calloc(1, size);
		}
	snprintf(problem, sizeof problem, "64 arrays of host_processor_info were never released");
	return calloc(1, size);
}

int fake_release(void *address, unsigned long size)
{
	for (int i = 0; i < 64; i++)
		if (blocks[i].address == address && address != NULL) {
			if (blocks[i].size != size)
				snprintf(problem, sizeof problem, "released %lu of %lu bytes", size, blocks[i].size);
			free(address);
			blocks[i].address = NULL;
			return 1;
		}
	snprintf(problem, sizeof problem, "released what was not allocated");
	return 0;
}

int fake_allocated(void)
{
	int count = 0;

	for (int i = 0; i < 64; i++)
		count += blocks[i].address != NULL;
	return count;
}

int fake_listing(void)
{
	beat_thread = pthread_self();
	beat_known = 1;
	return 0;
}

static int present(const struct process *p)
{
	double t = clock_now();

	return p->from <= t && t < p->to;
}

struct process *fake_find(int pid)
{
	for (int i = 0; i < process_count; i++)
		if (processes[i].pid == pid && present(&processes[i]))
			return &processes[i];
	return NULL;
}

int fake_pids(int *pids, int capacity)
{
	int count = 0;

	/* The newest first, as the kernel lists them. */
	for (int i = process_count - 1; i >= 0; i--)
		if (present(&processes[i])) {
			if (count < capacity)
				pids[count] = processes[i].pid;
			count++;
		}
	return count;
}

void fake_real_cpu(double *user, double *system)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	*user = (double)r.ru_utime.tv_sec + (double)r.ru_utime.tv_usec / 1e6;
	*system = (double)r.ru_stime.tv_sec + (double)r.ru_stime.tv_usec / 1e6;
}
