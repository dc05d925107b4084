/* What runs in the containers of a real node, where no image can be fetched: one static program.
 *
 *   box                          waits until it is told to end, and reaps whoever is left to it (pause; a node's init)
 *   box tell SECONDS [CODE]      writes down what it was given, stays for so long (-1: until told to end), ends with CODE
 *
 * It writes to /out/<POD_UID>_<CONTAINER>.<moment>, whole or not at all: a line "env NAME=value" for each variable
 * and "mount HOST-PATH-IN-ITS-FILESYSTEM PATH" for each mount.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void end(int signal_number) { (void)signal_number; _exit(0); }

static void reap(int signal_number)
{
    (void)signal_number;
    while (waitpid(-1, NULL, WNOHANG) > 0) { }
}

static void write_mounts(FILE *out)
{
    char line[8192], root[4096], point[4096];
    FILE *in = fopen("/proc/self/mountinfo", "r");
    while (in && fgets(line, sizeof line, in))
        if (sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) == 2)
            fprintf(out, "mount %s %s\n", root, point);
    if (in) fclose(in);
}

static int tell(void)
{
    const char *uid = getenv("POD_UID"), *container = getenv("CONTAINER");
    char whole[512], half[520];
    struct timespec now;
    if (!uid || !container) return 1;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(whole, sizeof whole, "/out/%s_%s.%lld%09ld", uid, container, (long long)now.tv_sec, now.tv_nsec);
    snprintf(half, sizeof half, "%s.half", whole);
    FILE *out = fopen(half, "w");
    if (!out) return 1;
    for (char **variable = environ; *variable; variable++) fprintf(out, "env %s\n", *variable);
    write_mounts(out);
    return fclose(out) || rename(half, whole);
}

int main(int argc, char **argv)
{
    signal(SIGTERM, end);
    signal(SIGINT, end);
    signal(SIGCHLD, reap);
    if (argc > 2 && !strcmp(argv[1], "tell")) {
        if (tell()) return 70;
        double seconds = atof(argv[2]);
        struct timespec left = { (time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9) };
        while (seconds < 0) pause();
        while (nanosleep(&left, &left)) { }
        return argc > 3 ? atoi(argv[3]) : 0;
    }
    for (;;) pause();
}
