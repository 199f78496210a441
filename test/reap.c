/*
 * reap.c
 *	  Runs a command and lets nothing that it started outlive it: reap [-t seconds] command args...
 *
 * A test starts servers, which leave its process group and session, and stops or kills some of them on
 * purpose.  reap makes itself the "subreaper" of all that: whatever loses its parent becomes reap's child, so that
 * it can be found and killed, whoever it is.  It ends its own command, too, when its own parent dies.
 *
 * Exit status: that of the command (128 + signal); TIMED_OUT after -t seconds; LEFT_RUNNING if the command
 * succeeded but processes were still there GRACE_EXIT seconds later: a server that does not notice the death
 * of its postmaster is a bug, not litter.  They are named on stderr.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMED_OUT 124
#define LEFT_RUNNING 123
#define GRACE_EXIT 5   /* seconds for descendants to go after the command went */
#define GRACE_TERM 20  /* seconds for the command to end after SIGTERM */
#define MAX_PROCESSES 32768

static pid_t process[MAX_PROCESSES];
static pid_t parent[MAX_PROCESSES];
static bool is_ours[MAX_PROCESSES];

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* The parent and state of a process as /proc has them; 0 if it is gone or a zombie. */
static pid_t
living_parent(pid_t pid)
{
	char path[64], text[512], *after_name;
	char state;
	int ppid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	if (fgets(text, sizeof(text), f) == NULL)
		text[0] = '\0';
	fclose(f);

	/* The name is in parentheses and may hold anything. */
	after_name = strrchr(text, ')');
	if (after_name == NULL || sscanf(after_name + 1, " %c %d", &state, &ppid) != 2 || state == 'Z')
		return 0;
	return ppid;
}

/* Fills the table of processes, marks our descendants, returns how many there are. */
static int
find_descendants(int *total)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	int count = 0, found = 0, before;

	while (proc != NULL && (entry = readdir(proc)) != NULL && count < MAX_PROCESSES)
	{
		pid_t pid = isdigit((unsigned char) entry->d_name[0]) ? atoi(entry->d_name) : 0;
		pid_t ppid = pid > 0 ? living_parent(pid) : 0;

		if (ppid > 0)
		{
			process[count] = pid;
			parent[count] = ppid;
			is_ours[count++] = false;
		}
	}
	if (proc != NULL)
		closedir(proc);

	do
	{
		before = found;
		for (int i = 0; i < count; i++)
		{
			bool ours = parent[i] == getpid();

			for (int j = 0; !ours && !is_ours[i] && j < count; j++)
				ours = is_ours[j] && process[j] == parent[i];
			if (ours && !is_ours[i])
			{
				is_ours[i] = true;
				found++;
			}
		}
	} while (found > before);

	*total = count;
	return found;
}

static void
name_process(pid_t pid)
{
	char path[64], text[256] = "";
	size_t length = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int) pid);
	f = fopen(path, "r");
	if (f != NULL)
	{
		length = fread(text, 1, sizeof(text) - 1, f);
		fclose(f);
	}
	for (size_t i = 0; i < length; i++)
		if (text[i] == '\0')
			text[i] = ' ';
	fprintf(stderr, "left running: %d %s\n", (int) pid, text);
}

static void
kill_descendants(bool name_them)
{
	int total;

	/* More than once: one that was just forking escapes the first look. */
	while (find_descendants(&total) > 0)
	{
		for (int i = 0; i < total; i++)
		{
			if (!is_ours[i])
				continue;
			if (name_them)
				name_process(process[i]);
			kill(process[i], SIGKILL);
		}
		name_them = false;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
	}
}

int
main(int argc, char **argv)
{
	double deadline = 0;
	bool terminated = false, timed_out = false;
	int first = 1, status = -1, total;
	pid_t command;
	sigset_t signals;

	if (argc > 2 && strcmp(argv[1], "-t") == 0)
	{
		deadline = now() + atof(argv[2]);
		first = 3;
	}
	if (first >= argc)
	{
		fprintf(stderr, "usage: reap [-t seconds] command args...\n");
		return 2;
	}

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGINT, SIG_DFL);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);

	command = fork();
	if (command < 0)
	{
		perror("fork");
		return 2;
	}
	if (command == 0)
	{
		setpgid(0, 0);
		/* A shell starts what it puts into the background with these ignored. */
		signal(SIGINT, SIG_DFL);
		signal(SIGQUIT, SIG_DFL);
		sigprocmask(SIG_UNBLOCK, &signals, NULL);
		execvp(argv[first], argv + first);
		perror(argv[first]);
		_exit(127);
	}

	/* Until the command ends, by itself or because it must. */
	while (status < 0)
	{
		double left = deadline > 0 ? deadline - now() : 3600;
		struct timespec wait = {.tv_sec = left > 0 ? (time_t) left : 0, .tv_nsec = 10 * 1000 * 1000};
		int signal_number = sigtimedwait(&signals, NULL, &wait);
		int one_status;
		pid_t pid;

		while ((pid = waitpid(-1, &one_status, WNOHANG)) > 0)
			if (pid == command)
				status = WIFEXITED(one_status) ? WEXITSTATUS(one_status) : 128 + WTERMSIG(one_status);
		if (status >= 0)
			break;

		if (deadline > 0 && now() >= deadline)
		{
			if (terminated)
				break;
			timed_out = true;
		}
		if (!terminated && (timed_out || (signal_number > 0 && signal_number != SIGCHLD)))
		{
			terminated = true;
			kill(-command, SIGTERM);
			kill(-command, SIGCONT);
			deadline = now() + GRACE_TERM;
		}
	}

	deadline = now() + (terminated ? 0 : GRACE_EXIT);
	while (find_descendants(&total) > 0 && now() < deadline)
	{
		struct timespec wait = {.tv_nsec = 50 * 1000 * 1000};

		if (sigtimedwait(&signals, NULL, &wait) > 0)
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
	}
	if (find_descendants(&total) > 0)
	{
		kill_descendants(!terminated);
		if (status == 0)
			status = LEFT_RUNNING;
	}
	return timed_out ? TIMED_OUT : status >= 0 ? status : 128 + SIGKILL;
}
