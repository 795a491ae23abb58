/*
 * isolate: run a command where it sees no process but its own.
 *
 * usage: isolate COMMAND [ARGUMENT...]
 *
 * In a new pid namespace with a /proc of its own, so that what others do on the machine changes neither the number of
 * processes that a benchmark watches nor how many of them run. Where that takes a privilege that is missing, a user
 * namespace gives it, in which the user stays who they are.
 *
 * SIGTERM is passed on to the command. When the command ends, everything that it left behind ends, too; the same when this
 * process, or the one that started it, is killed. Exit: the command's status, 128 + N when signal N ended it, 125 when there can be no namespace.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REFUSED = 125 };

static volatile pid_t below;

static void pass_on(int number)
{
	if (below > 0)
		kill(below, number);
}

static void no_more(int number)
{
	(void)number;          /* a terminal's SIGINT reaches the command by itself; this process waits for its end */
}

static void refuse(const char *what)
{
	fprintf(stderr, "isolate: %s: %s\n", what, strerror(errno));
	_exit(REFUSED);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		refuse(path);
	close(fd);
}

static void enter_namespaces(void)
{
	char map[64];
	uid_t uid = geteuid();
	gid_t gid = getegid();
	if (unshare(CLONE_NEWPID | CLONE_NEWNS) == 0)
		return;
	if (unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS))
		refuse("unshare");
	snprintf(map, sizeof map, "%u %u 1", uid, uid);
	write_file("/proc/self/uid_map", map);
	write_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof map, "%u %u 1", gid, gid);
	write_file("/proc/self/gid_map", map);
}

static void catch_signals(void)
{
	struct sigaction on_term = { .sa_handler = pass_on }, on_interrupt = { .sa_handler = no_more };
	sigaction(SIGTERM, &on_term, NULL);
	sigaction(SIGINT, &on_interrupt, NULL);
}

/* SIGTERM waits while `below` is not known yet: a handler that ran then would drop it. The child keeps it blocked. */
static void hold_term(int how)
{
	sigset_t term;
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(how, &term, NULL);
}

static void fork_below(void)
{
	hold_term(SIG_BLOCK);
	below = fork();
	if (below < 0)
		refuse("fork");
	if (below > 0)
		hold_term(SIG_UNBLOCK);
}

static int status_of(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Waits for the process `below`, and collects whatever else ends meanwhile. */
static int wait_below(void)
{
	for (;;) {
		int status;
		pid_t ended = waitpid(-1, &status, 0);
		if (ended == below)
			return status_of(status);
		if (ended < 0 && errno != EINTR)
			refuse("wait");
	}
}

/* The first process of the namespace: when it ends, the kernel ends all others in it. */
static int first_process(char **argv)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		refuse("mount /proc");
	catch_signals();
	fork_below();
	if (below == 0) {
		signal(SIGTERM, SIG_DFL);
		hold_term(SIG_UNBLOCK);
		execvp(argv[0], argv);
		perror(argv[0]);
		_exit(127);
	}
	return wait_below();
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: isolate COMMAND [ARGUMENT...]\n");
		return 2;
	}
	enter_namespaces();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	catch_signals();
	fork_below();
	if (below == 0)
		_exit(first_process(argv + 1));
	return wait_below();
}
