/*
 * instant: the functions of libproc that rogue-hunter calls on its beat, each of which answers at once.
 *
 * The fake of tests/darwin imitates what the kernel does; this one only answers, so that what is measured on it is
 * rogue-hunter's own cost and that of ctypes. It knows no layout: the answers are templates that the benchmark fills
 * through rogue-hunter's own structures, and where a number in them changes is told it with them.
 *
 * Processes are the pids FIRST .. FIRST + count - 1; the first `active` of them have run since the last tick. When they are
 * `denied`, all belong to another user: their counters may not be read.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

enum { FIRST = 1000, MOST = 1 << 16, FLAVORS = 32, TEMPLATE = 1024 };

enum function { LIST, RUSAGE, INFO, PATH, OTHER, FUNCTIONS };

struct template { int size, pid_at, cpu_at; unsigned char bytes[TEMPLATE]; };

static int count, active, denied;
static uint64_t cpu;                        /* grows with each tick: what the active ones have used */
static long calls[FUNCTIONS];
static struct template rusage, info[FLAVORS];

static void fill(struct template *t, int pid, void *buffer)
{
	memcpy(buffer, t->bytes, (size_t)t->size);
	if (t->pid_at >= 0)
		memcpy((char *)buffer + t->pid_at, &pid, sizeof pid);
	if (t->cpu_at >= 0 && pid < FIRST + active)
		memcpy((char *)buffer + t->cpu_at, &cpu, sizeof cpu);
}

static struct template *template_of(int flavor) { return flavor < 0 ? &rusage : &info[flavor % FLAVORS]; }

/* ---- for the benchmark ---- */

void instant_machine(int processes, int running, int of_another)
{
	denied = of_another;
	count = processes < MOST ? processes : MOST;
	active = running;
}

/* `flavor` -1: proc_pid_rusage. An offset of -1: nothing of that kind in it. */
void instant_template(int flavor, const void *bytes, int size, int pid_at, int cpu_at)
{
	struct template *t = template_of(flavor);
	t->size = size;
	t->pid_at = pid_at;
	t->cpu_at = cpu_at;
	memcpy(t->bytes, bytes, (size_t)size);
}

void instant_tick(void) { cpu += 240000; }
long instant_calls(int function) { return calls[function]; }
void instant_reset(void) { memset(calls, 0, sizeof calls); }

/* ---- libproc ---- */

int proc_listallpids(void *buffer, int size)
{
	int *pids = buffer, room = size / (int)sizeof *pids;
	calls[LIST]++;
	if (!buffer)
		return count + 20;
	for (int i = 0; i < count && i < room; i++)
		pids[i] = FIRST + count - 1 - i;       /* the newest first, as the kernel lists them */
	return count < room ? count : room;
}

int proc_pid_rusage(int pid, int flavor, void *buffer)
{
	(void)flavor;
	calls[RUSAGE]++;
	if (pid < FIRST || pid >= FIRST + count) {
		errno = ESRCH;
		return -1;
	}
	if (denied) {
		errno = EPERM;
		return -1;
	}
	fill(&rusage, pid, buffer);
	return 0;
}

int proc_pidinfo(int pid, int flavor, uint64_t argument, void *buffer, int size)
{
	struct template *t = template_of(flavor);
	(void)argument;
	calls[INFO]++;
	if (t->size == 0 || t->size > size) {
		errno = EINVAL;
		return 0;
	}
	fill(t, pid, buffer);
	return t->size;
}

int proc_pidpath(int pid, void *buffer, uint32_t size)
{
	static const char path[] = "/Applications/Example.app/Contents/MacOS/Example";
	(void)pid, (void)size;
	calls[PATH]++;
	memcpy(buffer, path, sizeof path);
	return sizeof path - 1;
}

int proc_name(int pid, void *buffer, uint32_t size)
{
	(void)pid, (void)buffer, (void)size;
	calls[OTHER]++;
	return 0;
}

int sysctl(int *name, unsigned length, void *old, uint64_t *size, void *new, uint64_t new_size)
{
	(void)name, (void)length, (void)old, (void)size, (void)new, (void)new_size;
	calls[OTHER]++;
	errno = EINVAL;
	return -1;
}

int sysctlbyname(const char *name, void *old, uint64_t *size, void *new, uint64_t new_size)
{
	uint64_t value = 0;
	(void)new, (void)new_size;
	calls[OTHER]++;
	if (!strcmp(name, "hw.ncpu")) value = 8;
	if (!strcmp(name, "hw.memsize")) value = 16ull << 30;
	if (!strcmp(name, "hw.pagesize")) value = 16384;
	if (!strncmp(name, "vm.page_", 8)) value = 100000;
	if (!strcmp(name, "hw.tbfrequency")) value = 24000000;
	if (!value) {
		errno = ENOENT;
		return -1;
	}
	if (old)
		memcpy(old, &value, sizeof value);
	*size = sizeof value;
	return 0;
}

int mach_timebase_info(void *info_)
{
	uint32_t *info32 = info_;
	info32[0] = 125;
	info32[1] = 3;
	return 0;
}

uint64_t mach_absolute_time(void) { calls[OTHER]++; return 0; }
uint64_t mach_continuous_time(void) { calls[OTHER]++; return 0; }
uint32_t mach_host_self(void) { return 1; }

uint32_t mach_task_self_ = 2;

int host_processor_info(uint32_t host, int flavor, uint32_t *cpus, void **info, uint32_t *words)
{
	static uint32_t ticks[8 * 4];
	(void)host, (void)flavor;
	calls[OTHER]++;
	for (int i = 0; i < 8; i++)
		ticks[4 * i] += 33;
	*cpus = 8;
	*info = ticks;
	*words = 8 * 4;
	return 0;
}

int vm_deallocate(uint32_t task, uint64_t address, uint64_t size)
{
	(void)task, (void)address, (void)size;
	calls[OTHER]++;
	return 0;
}

int pthread_set_qos_class_self_np(uint32_t qos, int relative) { (void)qos, (void)relative; return 0; }
char *devname_r(int32_t device, uint16_t type, void *buffer, int size)
{
	(void)device, (void)type, (void)buffer, (void)size;
	return 0;
}
