/* The scripted machine behind the fake libproc. No header of any system is included here, so that both the half that
 * is compiled under Apple's headers (apple.c) and the half that uses this system's C library (model.c) can. */
#ifndef FAKE_MODEL_H
#define FAKE_MODEL_H

enum counter {   /* what grows, in the unit in parentheses */
	C_USER, C_SYSTEM,               /* (s) CPU time */
	C_DELAY,                        /* (s) ready but not running: runnable time is this plus CPU time */
	C_CHILD, C_QOS,                 /* (s) children's CPU time; CPU time at user-interactive */
	C_WAKEUPS, C_PAGEINS, C_FAULTS, C_CSW, C_MACH, C_UNIX, C_SENT, C_RECEIVED,     /* counts */
	C_READ, C_WRITTEN,              /* (bytes) */
	C_INSTRUCTIONS, C_CYCLES,       /* counts */
	C_ENERGY,                       /* (nJ) */
	C_FOOTPRINT, C_PEAK,            /* (bytes) sizes, but they may be made to grow */
	COUNTERS
};

struct slope { double base, rate, since; };

struct process {
	char id[32];
	int pid, ppid, uid;
	char comm[64], name[64], path[1100], args[4096], tstates[65];
	double from, to;                /* it is listed from .. to */
	int zombie, gone;               /* gone: listed, but every call says ESRCH but BSDINFO */
	int status, threads, running, priority, nice, denied;
	unsigned tdev;
	unsigned long long uniqueid;
	int ignores, signals[8], signal_count;   /* ignores: SIGTERM */
	int idversion, exec;            /* exec: changes the program's uuid */
	double start;                   /* seconds relative to the script's time 0 */
	int real_cpu;                   /* CPU time of the program that loaded this */
	struct slope counters[COUNTERS];
};

struct machine {
	unsigned numer, denom;
	unsigned long long tbfrequency, memsize, pagesize;
	int ncpu, flavors, uniqids;
	double wall, uptime, asleep, counter_frequency;
	char bootuuid[64], hostname[64];
	unsigned free, external, purgeable, speculative;
	double others;                  /* requests a second of other programs for the machine's statistics */
	struct slope busy;
};

/* Every exported function begins with enter, which counts the call, and ends with leave. */
void fake_enter(const char *function, int pid);
void fake_leave(void);
int fake_listing(void);                                     /* the calling thread is the beat from now on */
void fake_fail(int number);                                 /* errno */
struct machine *fake_machine(void);
struct process *fake_find(int pid);                         /* alive or zombie */
int fake_pids(int *pids, int capacity);                     /* how many there are; writes at most capacity */
double fake_value(const struct process *p, enum counter c);
double fake_busy_at(double time);
double fake_fresh(int kind);                                /* the time of the answer that host_statistics gives now */
void *fake_allocate(unsigned long size);
int fake_release(void *address, unsigned long size);        /* 0: it was not allocated, or with another size */
double fake_time(void);                                     /* seconds since the script's time 0, asleep not counted */
double fake_wall_seconds(void);
void fake_real_cpu(double *user, double *system);
void fake_qos(unsigned qos);
void fake_signal(struct process *p, int number);            /* what it does to it, and that it came */

#endif
