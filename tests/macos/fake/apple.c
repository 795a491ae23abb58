/* The functions of libproc and libSystem that rogue-hunter calls, answered from the scripted machine.
 *
 * Compiled under Apple's own headers (see fake.py), and every structure is filled by the names of its fields: where a
 * field lies is the headers' to say, not rogue-hunter's. What the functions answer, and with which errno, imitates what
 * xnu's source does: that part only a Mac can prove. */
#include <libproc.h>
#include <mach/mach.h>
#include <mach/mach_time.h>
#include <pthread/qos.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/errno.h>
#include <sys/proc.h>
#include <sys/proc_info.h>
#include <sys/resource.h>
#include <sys/sysctl.h>

#include "model.h"

/* Private to Apple's headers; transcribed from the description in the reference of the kernel's interface. */
struct uniqidentifierinfo {
	uint8_t p_uuid[16];
	uint64_t p_uniqueid, p_puniqueid;
	int32_t p_idversion, p_orig_ppidversion;
	uint64_t p_reserve2, p_reserve3;
};
#define UNIQIDENTIFIERINFO 17

struct guard { int dummy; };
static void leave(struct guard *g) { (void)g; fake_leave(); }
#define ENTER(name, pid) struct guard guard __attribute__((cleanup(leave), unused)) = { (fake_enter(name, pid), 0) }

static uint64_t ticks(double seconds) { return (uint64_t)(seconds * fake_machine()->counter_frequency + 0.5); }
static uint64_t whole(double value) { return (uint64_t)(value + 0.5); }
static int32_t saturating(double value) { return value >= 2147483647.0 ? 2147483647 : (int32_t)(value + 0.5); }

static void cpu_of(const struct process *p, double *user, double *system)
{
	*user = fake_value(p, C_USER);
	*system = fake_value(p, C_SYSTEM);
	if (p->real_cpu)
		fake_real_cpu(user, system);
}

static double value(const struct process *p, enum counter c) { return fake_value(p, c); }

/* A name cut to its field, ended by NUL as the kernel's strlcpy does. */
static void name_into(char *to, unsigned long size, const char *from)
{
	strncpy(to, from, size - 1);
	to[size - 1] = 0;
}

static int failed(int number, int result)
{
	fake_fail(number);
	return result;
}

int proc_listallpids(void *buffer, int buffersize)
{
	fake_listing();
	ENTER("proc_listallpids", 0);
	int count = fake_pids(0, 0), capacity = buffersize / (int)sizeof(int);

	if (buffer == 0)
		return count + 20;
	fake_pids(buffer, capacity);
	return count < capacity ? count : capacity;
}

int proc_pid_rusage(int pid, int flavor, rusage_info_t *buffer)
{
	static const unsigned long sizes[] = {
		sizeof(struct rusage_info_v0), sizeof(struct rusage_info_v1), sizeof(struct rusage_info_v2),
		sizeof(struct rusage_info_v3), sizeof(struct rusage_info_v4), sizeof(struct rusage_info_v5),
		sizeof(struct rusage_info_v6),
	};
	ENTER("proc_pid_rusage", pid);
	struct machine *m = fake_machine();
	struct process *p = fake_find(pid);
	struct rusage_info_v6 r;
	double user, system;

	if (flavor < 0 || flavor > m->flavors)
		return failed(EINVAL, -1);
	if (p == 0 || p->gone)
		return failed(ESRCH, -1);
	if (p->denied)
		return failed(EPERM, -1);
	memset(&r, 0, sizeof r);
	cpu_of(p, &user, &system);
	for (int i = 0; i < 16; i++)
		r.ri_uuid[i] = (uint8_t)(p->uniqueid * 31 + (unsigned)p->exec * 7 + (unsigned)i);
	r.ri_user_time = ticks(user);
	r.ri_system_time = ticks(system);
	r.ri_interrupt_wkups = whole(value(p, C_WAKEUPS));
	r.ri_pkg_idle_wkups = r.ri_interrupt_wkups / 3;
	r.ri_pageins = whole(value(p, C_PAGEINS));
	r.ri_resident_size = whole(value(p, C_FOOTPRINT)) * 2;
	r.ri_phys_footprint = whole(value(p, C_FOOTPRINT));
	r.ri_proc_start_abstime = ticks(m->uptime + p->start);
	r.ri_proc_exit_abstime = p->zombie ? ticks(m->uptime + 1) : 0;
	r.ri_child_user_time = ticks(value(p, C_CHILD));
	r.ri_diskio_bytesread = whole(value(p, C_READ));
	r.ri_diskio_byteswritten = whole(value(p, C_WRITTEN));
	r.ri_cpu_time_qos_user_interactive = ticks(value(p, C_QOS));
	r.ri_lifetime_max_phys_footprint = whole(value(p, C_PEAK));
	r.ri_instructions = whole(value(p, C_INSTRUCTIONS));
	r.ri_cycles = whole(value(p, C_CYCLES));
	r.ri_runnable_time = r.ri_user_time + r.ri_system_time + ticks(value(p, C_DELAY));
	r.ri_energy_nj = whole(value(p, C_ENERGY));
	memcpy(buffer, &r, sizes[flavor]);
	return 0;
}

static void fill_bsd(struct proc_bsdinfo *b, const struct process *p)
{
	double start = fake_machine()->wall + p->start;

	memset(b, 0, sizeof *b);
	b->pbi_status = (uint32_t)(p->zombie ? SZOMB : p->status);
	b->pbi_pid = (uint32_t)p->pid;
	b->pbi_ppid = (uint32_t)p->ppid;
	b->pbi_uid = b->pbi_ruid = b->pbi_svuid = (uint32_t)p->uid;
	b->pbi_gid = b->pbi_rgid = b->pbi_svgid = 20;
	name_into(b->pbi_comm, sizeof b->pbi_comm, p->comm);
	name_into(b->pbi_name, sizeof b->pbi_name, p->name);
	b->e_tdev = p->tdev;
	b->pbi_nice = p->nice;
	b->pbi_start_tvsec = (uint64_t)start;
	b->pbi_start_tvusec = (uint64_t)((start - (double)(uint64_t)start) * 1e6);
}

static void fill_task(struct proc_taskinfo *t, const struct process *p)
{
	double user, system;

	memset(t, 0, sizeof *t);
	cpu_of(p, &user, &system);
	t->pti_resident_size = whole(value(p, C_FOOTPRINT)) * 2;
	t->pti_total_user = ticks(user);
	t->pti_total_system = ticks(system);
	t->pti_faults = saturating(value(p, C_FAULTS));
	t->pti_pageins = saturating(value(p, C_PAGEINS));
	t->pti_messages_sent = saturating(value(p, C_SENT));
	t->pti_messages_received = saturating(value(p, C_RECEIVED));
	t->pti_syscalls_mach = saturating(value(p, C_MACH));
	t->pti_syscalls_unix = saturating(value(p, C_UNIX));
	t->pti_csw = saturating(value(p, C_CSW));
	t->pti_threadnum = p->threads;
	t->pti_numrunning = p->running;
	t->pti_priority = p->priority;
}

static void fill_short(struct proc_bsdshortinfo *b, const struct process *p)
{
	memset(b, 0, sizeof *b);
	b->pbsi_pid = (uint32_t)p->pid;
	b->pbsi_ppid = (uint32_t)p->ppid;
	b->pbsi_status = (uint32_t)(p->zombie ? SZOMB : p->status);
	name_into(b->pbsi_comm, sizeof b->pbsi_comm, p->comm);
	b->pbsi_uid = b->pbsi_ruid = b->pbsi_svuid = (uint32_t)p->uid;
}

static int thread_state(char letter)
{
	switch (letter) {
	case 'R': return TH_STATE_RUNNING;
	case 'S': return TH_STATE_STOPPED;
	case 'U': return TH_STATE_UNINTERRUPTIBLE;
	case 'H': return TH_STATE_HALTED;
	default: return TH_STATE_WAITING;
	}
}

static const char *flavor_name(int flavor)
{
	switch (flavor) {
	case PROC_PIDTASKALLINFO: return "PROC_PIDTASKALLINFO";
	case PROC_PIDTBSDINFO: return "PROC_PIDTBSDINFO";
	case PROC_PIDTHREADINFO: return "PROC_PIDTHREADINFO";
	case PROC_PIDLISTTHREADS: return "PROC_PIDLISTTHREADS";
	case PROC_PIDT_SHORTBSDINFO: return "PROC_PIDT_SHORTBSDINFO";
	case UNIQIDENTIFIERINFO: return "PROC_PIDUNIQIDENTIFIERINFO";
	default: return "proc_pidinfo";
	}
}

static int pidinfo(struct process *p, int flavor, uint64_t arg, void *buffer, int size)
{
	int open = flavor == PROC_PIDT_SHORTBSDINFO || flavor == UNIQIDENTIFIERINFO;
	int finds_zombies = open || flavor == PROC_PIDTBSDINFO;

	if (p == 0 || (p->zombie && !(finds_zombies && arg)) || (p->gone && flavor != PROC_PIDTBSDINFO))
		return failed(ESRCH, 0);
	if (p->denied && !open)
		return failed(EPERM, 0);
#define WANT(type) if (size < (int)sizeof(type)) return failed(ENOMEM, 0)
	switch (flavor) {
	case PROC_PIDTASKALLINFO: {
		struct proc_taskallinfo a;

		WANT(struct proc_taskallinfo);
		fill_bsd(&a.pbsd, p);
		fill_task(&a.ptinfo, p);
		memcpy(buffer, &a, sizeof a);
		return sizeof a;
	}
	case PROC_PIDTBSDINFO:
		WANT(struct proc_bsdinfo);
		fill_bsd(buffer, p);
		return sizeof(struct proc_bsdinfo);
	case PROC_PIDT_SHORTBSDINFO:
		WANT(struct proc_bsdshortinfo);
		fill_short(buffer, p);
		return sizeof(struct proc_bsdshortinfo);
	case UNIQIDENTIFIERINFO: {
		struct uniqidentifierinfo u = { .p_uniqueid = p->uniqueid, .p_idversion = p->idversion };

		if (!fake_machine()->uniqids)
			return failed(EINVAL, 0);
		WANT(struct uniqidentifierinfo);
		memcpy(buffer, &u, sizeof u);
		return sizeof u;
	}
	case PROC_PIDLISTTHREADS: {
		int count = (int)strlen(p->tstates), i;

		for (i = 0; i < count && (i + 1) * (int)sizeof(uint64_t) <= size; i++)
			((uint64_t *)buffer)[i] = 0x100000u + (uint64_t)i;
		return i * (int)sizeof(uint64_t);
	}
	case PROC_PIDTHREADINFO: {
		struct proc_threadinfo t;

		WANT(struct proc_threadinfo);
		if (arg < 0x100000u || arg - 0x100000u >= strlen(p->tstates))
			return failed(ESRCH, 0);
		memset(&t, 0, sizeof t);
		t.pth_run_state = thread_state(p->tstates[arg - 0x100000u]);
		memcpy(buffer, &t, sizeof t);
		return sizeof t;
	}
	}
	return failed(EINVAL, 0);
}

int proc_pidinfo(int pid, int flavor, uint64_t arg, void *buffer, int buffersize)
{
	ENTER(flavor_name(flavor), pid);
	return pidinfo(fake_find(pid), flavor, arg, buffer, buffersize);
}

int proc_pidpath(int pid, void *buffer, uint32_t buffersize)
{
	ENTER("proc_pidpath", pid);
	struct process *p = fake_find(pid);

	if (buffersize < PROC_PIDPATHINFO_SIZE)
		return failed(ENOMEM, 0);
	if (buffersize > PROC_PIDPATHINFO_MAXSIZE)
		return failed(EOVERFLOW, 0);
	if (p == 0 || p->zombie || p->gone)
		return failed(ESRCH, 0);
	if (p->path[0] == 0)
		return failed(ENOENT, 0);
	memcpy(buffer, p->path, strlen(p->path) + 1);
	return (int)strlen(p->path);
}

int proc_name(int pid, void *buffer, uint32_t buffersize)
{
	ENTER("proc_name", pid);
	struct process *p = fake_find(pid);
	const char *name;

	if (p == 0 || p->denied || p->zombie)
		return failed(p == 0 || p->zombie ? ESRCH : EPERM, 0);
	name = p->name[0] ? p->name : p->comm;
	name_into(buffer, buffersize, name);
	return (int)strlen(name);
}

/* Words 5 and 7 of the token are the pid and its version; the version changes with exec and with reuse. */
int proc_signal_with_audittoken(audit_token_t *token, int sig)
{
	int pid = (int)token->val[5];

	ENTER("proc_signal_with_audittoken", pid);
	struct process *p = fake_find(pid);

	if (p == 0 || p->zombie || p->idversion != (int)token->val[7])
		return ESRCH;
	if (p->denied)
		return EPERM;
	fake_signal(p, sig);
	return 0;
}

/* ---- sysctl ---- */

static int give(const void *value, size_t length, void *old, size_t *oldlen)
{
	if (old != 0) {
		if (*oldlen < length)
			return failed(ENOMEM, -1);
		memcpy(old, value, length);
	}
	*oldlen = length;
	return 0;
}

static int give_u64(uint64_t v, void *old, size_t *oldlen) { return give(&v, sizeof v, old, oldlen); }
static int give_int(int v, void *old, size_t *oldlen) { return give(&v, sizeof v, old, oldlen); }

int sysctlbyname(const char *name, void *old, size_t *oldlen, void *new, size_t newlen)
{
	ENTER("sysctlbyname", 0);
	struct machine *m = fake_machine();

	(void)new, (void)newlen;
	if (!strcmp(name, "hw.tbfrequency") && m->tbfrequency) return give_u64(m->tbfrequency, old, oldlen);
	if (!strcmp(name, "hw.ncpu")) return give_int(m->ncpu, old, oldlen);
	if (!strcmp(name, "hw.memsize")) return give_u64(m->memsize, old, oldlen);
	if (!strcmp(name, "hw.pagesize")) return give_u64(m->pagesize, old, oldlen);
	if (!strcmp(name, "vm.page_free_count")) return give_int((int)(m->free - m->speculative), old, oldlen);
	if (!strcmp(name, "vm.page_pageable_external_count")) return give_int((int)m->external, old, oldlen);
	if (!strcmp(name, "vm.page_purgeable_count")) return give_int((int)m->purgeable, old, oldlen);
	if (!strcmp(name, "kern.argmax")) return give_int(262144, old, oldlen);
	if (!strcmp(name, "kern.memorystatus_vm_pressure_level")) return give_int(1, old, oldlen);
	if (!strcmp(name, "kern.hostname")) return give(m->hostname, strlen(m->hostname) + 1, old, oldlen);
	if (!strcmp(name, "kern.bootsessionuuid") && m->bootuuid[0])
		return give(m->bootuuid, strlen(m->bootuuid) + 1, old, oldlen);
	if (!strcmp(name, "kern.boottime")) {
		struct timeval t = { (long)(m->wall - m->uptime), 250000 };

		return give(&t, sizeof t, old, oldlen);
	}
	return failed(ENOENT, -1);
}

static int kinfo(struct process *p, void *old, size_t *oldlen)
{
	struct kinfo_proc k;
	double start;

	if (p == 0) {
		*oldlen = 0;
		return 0;
	}
	start = fake_machine()->wall + p->start;
	memset(&k, 0, sizeof k);
	k.kp_proc.p_starttime.tv_sec = (long)start;
	k.kp_proc.p_starttime.tv_usec = (int)((start - (double)(long)start) * 1e6);
	k.kp_proc.p_stat = (char)(p->zombie ? SZOMB : p->status);
	k.kp_proc.p_pid = p->pid;
	k.kp_proc.p_nice = (char)p->nice;
	name_into(k.kp_proc.p_comm, sizeof k.kp_proc.p_comm, p->comm);
	k.kp_eproc.e_ucred.cr_uid = (uid_t)p->uid;
	k.kp_eproc.e_pcred.p_ruid = (uid_t)p->uid;
	k.kp_eproc.e_ppid = p->ppid;
	k.kp_eproc.e_tdev = (dev_t)p->tdev;
	return give(&k, sizeof k, old, oldlen);
}

/* argc, the program's path, padding to eight bytes, the arguments (| in the script), then an environment. */
static int arguments(struct process *p, void *old, size_t *oldlen)
{
	static char area[16384];
	int argc = 0;
	size_t at = sizeof argc;
	const char *a;

	if (p == 0)
		return failed(EINVAL, -1);
	if (p->denied || p->zombie || p->args[0] == 0)
		return failed(EINVAL, -1);
	memcpy(area + at, p->path, strlen(p->path) + 1);
	at += strlen(p->path) + 1;
	while (at % 8)
		area[at++] = 0;
	for (a = p->args, argc = 1; *a; a++) {
		area[at++] = *a == '|' ? 0 : *a;
		argc += *a == '|';
	}
	area[at++] = 0;
	memcpy(area + at, "NEVER_SHOWN=environment", 24);
	at += 24;
	memcpy(area, &argc, sizeof argc);
	return give(area, at, old, oldlen);
}

int sysctl(int *name, u_int count, void *old, size_t *oldlen, void *new, size_t newlen)
{
	int pid = count == 4 ? name[3] : count == 3 ? name[2] : 0;

	ENTER("sysctl", pid);
	(void)new, (void)newlen;
	if (count == 4 && name[0] == CTL_KERN && name[1] == KERN_PROC && name[2] == KERN_PROC_PID)
		return kinfo(fake_find(pid), old, oldlen);
	if (count == 3 && name[0] == CTL_KERN && name[1] == KERN_PROCARGS2)
		return arguments(fake_find(pid), old, oldlen);
	return failed(ENOENT, -1);
}

/* ---- clocks and the machine ---- */

kern_return_t mach_timebase_info(mach_timebase_info_t info)
{
	ENTER("mach_timebase_info", 0);
	info->numer = fake_machine()->numer;
	info->denom = fake_machine()->denom;
	return KERN_SUCCESS;
}

/* In the timebase that this program is told, which under Rosetta is not that of the counters. */
static uint64_t clock_ticks(double seconds)
{
	return (uint64_t)(seconds * 1e9 * fake_machine()->denom / fake_machine()->numer + 0.5);
}

uint64_t mach_absolute_time(void)
{
	ENTER("mach_absolute_time", 0);
	return clock_ticks(fake_machine()->uptime + fake_time());
}

uint64_t mach_continuous_time(void)
{
	ENTER("mach_continuous_time", 0);
	return clock_ticks(fake_machine()->uptime + 500 + fake_machine()->asleep + fake_time());
}

mach_port_t mach_host_self(void)
{
	ENTER("mach_host_self", 0);
	return 4711;
}

mach_port_t mach_task_self_ = 4712;

/* All CPUs are equally busy; their ticks come one after the other. Those of the first state wrap soon. */
static void cpu_ticks(natural_t *ticks, int cpu, double time)
{
	struct machine *m = fake_machine();
	double busy = fake_busy_at(time) / m->ncpu, phase = (double)cpu / m->ncpu;

	ticks[CPU_STATE_USER] = (natural_t)(uint64_t)(100 * busy * 0.7 + 4294967000.0 + phase);
	ticks[CPU_STATE_SYSTEM] = (natural_t)(uint64_t)(100 * busy * 0.3 + phase);
	ticks[CPU_STATE_IDLE] = (natural_t)(uint64_t)(100 * (time + m->uptime - busy) + phase);
	ticks[CPU_STATE_NICE] = 0;
}

kern_return_t host_processor_info(host_t host, processor_flavor_t flavor, natural_t *cpus, processor_info_array_t *info,
                                  mach_msg_type_number_t *words)
{
	ENTER("host_processor_info", 0);
	struct machine *m = fake_machine();
	natural_t *ticks;

	if (host != 4711 || flavor != PROCESSOR_CPU_LOAD_INFO)
		return KERN_INVALID_ARGUMENT;
	ticks = fake_allocate((unsigned long)m->ncpu * CPU_STATE_MAX * sizeof *ticks);
	for (int i = 0; i < m->ncpu; i++)
		cpu_ticks(ticks + i * CPU_STATE_MAX, i, fake_time());
	*cpus = (natural_t)m->ncpu;
	*info = (processor_info_array_t)ticks;
	*words = (mach_msg_type_number_t)(m->ncpu * CPU_STATE_MAX);
	return KERN_SUCCESS;
}

kern_return_t vm_deallocate(vm_map_t task, vm_address_t address, vm_size_t size)
{
	ENTER("vm_deallocate", 0);
	return task == mach_task_self_ && fake_release((void *)address, size) ? KERN_SUCCESS : KERN_INVALID_ADDRESS;
}

/* The two calls below are rate limited: all programs together get 2 to 10 answers a second and flavor, and from then on
 * the last answer again, with success (xnu, rate_limit_host_statistics). rogue-hunter does not use them; a test shows why. */
kern_return_t host_statistics(host_t host, host_flavor_t flavor, host_info_t out, mach_msg_type_number_t *count)
{
	ENTER("host_statistics", 0);
	natural_t ticks[CPU_STATE_MAX], sum[CPU_STATE_MAX] = { 0 };
	double when = fake_fresh(0);

	if (host != 4711 || flavor != HOST_CPU_LOAD_INFO || *count < HOST_CPU_LOAD_INFO_COUNT)
		return KERN_INVALID_ARGUMENT;
	for (int i = 0; i < fake_machine()->ncpu; i++) {
		cpu_ticks(ticks, i, when);
		for (int k = 0; k < CPU_STATE_MAX; k++)
			sum[k] += ticks[k];
	}
	memcpy(out, sum, sizeof sum);
	*count = HOST_CPU_LOAD_INFO_COUNT;
	return KERN_SUCCESS;
}

int pthread_set_qos_class_self_np(qos_class_t qos, int relative)
{
	ENTER("pthread_set_qos_class_self_np", 0);
	(void)relative;
	fake_qos((unsigned)qos);
	return 0;
}

char *devname_r(dev_t device, mode_t type, char *buffer, int length)
{
	ENTER("devname_r", 0);
	if (type != 0020000 || length < 8)
		return 0;
	memcpy(buffer, (unsigned)device == 0x10000003u ? "ttys003" : "??\0\0\0\0\0", 8);
	return buffer;
}
