/*
 * load: the machines that the benchmark measures, made of cheap processes.
 *
 * usage: load [--idle N] [--active N] [--wake-hz H] [--spin-us U] [--threaded N] [--threads T] [--storm R]
 *        load run COMMAND [ARGUMENT...]
 *
 *   --idle N       N single-threaded processes that sleep for ever
 *   --active N     N single-threaded processes that wake H times a second (10) and compute for U microseconds (50)
 *   --threaded N   N processes of T threads (50, the first one included) that all sleep for ever
 *   --storm R      one process, named storm, that starts R processes a second, each of which ends at once
 *   run            become COMMAND, which is killed when whoever started it dies
 *
 * All are children of this process. When they stand, it prints "ready" and the number of its children; it ends at the end
 * of its standard input or at SIGTERM, and ends and collects all of them first, each by its own pid: as they are its own
 * uncollected children, such a pid cannot be another's. If it is killed, so are they (PR_SET_PDEATHSIG).
 * Exit 0; 2 on bad usage; 71 when the machine refuses another process or thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pid_t *children;
static size_t count, room;
static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

static void sleep_for_ever(void)
{
	for (;;)
		pause();
}

static void end_all(void)
{
	for (size_t i = 0; i < count; i++)
		kill(children[i], SIGKILL);
	for (size_t i = 0; i < count; i++)
		waitpid(children[i], NULL, 0);
}

static void refuse(const char *what)
{
	perror(what);
	end_all();
	exit(71);
}

/* fork() whose child dies with its parent. Returns 0 in the child. */
static pid_t start(void)
{
	pid_t parent = getpid();
	if (count == room) {
		room = room ? room * 2 : 1024;
		children = realloc(children, room * sizeof *children);
		if (!children)
			refuse("load");
	}
	pid_t pid = fork();
	if (pid < 0)
		refuse("load: fork");
	if (pid == 0) {
		signal(SIGTERM, SIG_DFL);
		signal(SIGINT, SIG_DFL);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)         /* it died before the line above */
			_exit(0);
		close(STDIN_FILENO);
		close(STDOUT_FILENO);
		return 0;
	}
	children[count++] = pid;
	return pid;
}

static void spin(long microseconds)
{
	struct timespec begin, at;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do
		clock_gettime(CLOCK_MONOTONIC, &at);
	while ((at.tv_sec - begin.tv_sec) * 1000000 + (at.tv_nsec - begin.tv_nsec) / 1000 < microseconds);
}

static void nap(double seconds)
{
	struct timespec t = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
	nanosleep(&t, NULL);
}

/* Each begins at its own place in the period, so that they do not all wake at the same moment. */
static void be_active(size_t number, double hz, long microseconds)
{
	nap((double)(number % 97) / 97 / hz);
	for (;;) {
		spin(microseconds);
		nap(1 / hz);
	}
}

static void *thread_main(void *unused)
{
	sleep_for_ever();
	return unused;
}

static void be_threaded(long threads)
{
	pthread_attr_t attributes;
	pthread_t thread;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	for (long i = 1; i < threads; i++)
		if (pthread_create(&thread, &attributes, thread_main, NULL))
			_exit(71);
	/* Tells the parent that the threads stand: it waits for this stop, then lets the process go on. */
	raise(SIGSTOP);
	sleep_for_ever();
}

static void be_storm(double rate)
{
	struct timespec due;
	prctl(PR_SET_NAME, "storm");             /* so that one can see who is named for it */
	clock_gettime(CLOCK_MONOTONIC, &due);
	for (;;) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(0);
		if (pid > 0)
			waitpid(pid, NULL, 0);
		due.tv_nsec += (long)(1e9 / rate);
		while (due.tv_nsec >= 1000000000) {
			due.tv_nsec -= 1000000000;
			due.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
	}
}

static void start_threaded(long threads)
{
	int status;
	pid_t pid = start();
	if (pid == 0)
		be_threaded(threads);
	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status)) {
		errno = EAGAIN;
		count--;                         /* it was collected by the line above */
		refuse("load: threads");
	}
	kill(pid, SIGCONT);
}

static int run_command(char **argv)
{
	pid_t parent = getppid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		return 1;
	execvp(argv[0], argv);
	perror(argv[0]);
	return 127;
}

int main(int argc, char **argv)
{
	static const char *const names[] = {
		"--idle", "--active", "--wake-hz", "--spin-us", "--threaded", "--threads", "--storm"
	};
	double values[] = { 0, 0, 10, 50, 0, 50, 0 };
	enum { IDLE, ACTIVE, WAKE_HZ, SPIN_US, THREADED, THREADS, STORM, OPTIONS };
	if (argc > 2 && !strcmp(argv[1], "run"))
		return run_command(argv + 2);
	for (int i = 1; i < argc; i += 2) {
		int option = 0;
		char *end;
		while (option < OPTIONS && strcmp(argv[i], names[option]))
			option++;
		if (option == OPTIONS || i + 1 == argc)
			goto usage;
		values[option] = strtod(argv[i + 1], &end);
		if (*end || values[option] < 0)
			goto usage;
	}
	if (values[WAKE_HZ] <= 0 || values[THREADS] < 2)
		goto usage;
	prctl(PR_SET_PDEATHSIG, SIGTERM);        /* when the benchmark dies, this ends in order */
	struct sigaction action = { .sa_handler = on_signal };   /* no SA_RESTART: read() below must return */
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);

	for (size_t i = 0; !stop && i < (size_t)values[IDLE]; i++)
		if (start() == 0)
			sleep_for_ever();
	for (size_t i = 0; !stop && i < (size_t)values[ACTIVE]; i++)
		if (start() == 0)
			be_active(i, values[WAKE_HZ], (long)values[SPIN_US]);
	for (size_t i = 0; !stop && i < (size_t)values[THREADED]; i++)
		start_threaded((long)values[THREADS]);
	if (!stop && values[STORM] > 0 && start() == 0)
		be_storm(values[STORM]);

	printf("ready %zu\n", count);
	fflush(stdout);
	char byte;
	while (!stop && read(STDIN_FILENO, &byte, 1) > 0)
		;
	end_all();
	return 0;
usage:
	fprintf(stderr, "usage: load [--idle N] [--active N] [--wake-hz H] [--spin-us U] [--threaded N] [--threads T] "
			"[--storm R]\n       load run COMMAND [ARGUMENT...]\n");
	return 2;
}
