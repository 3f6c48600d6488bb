/* Runs a program many times, as a web server runs a CGI script, and reads its output.
 *
 *   start TIMES PROGRAM ARGUMENT...
 *
 * Prints for each run the time from before its start to after its end and its processor time, in milliseconds. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static double milliseconds(struct timeval t) { return t.tv_sec * 1e3 + t.tv_usec / 1e3; }

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  for (int i = atoi(argv[1]); i > 0; i--) {
    int output[2], status;
    char bytes[65536];
    pid_t pid;
    struct rusage usage;
    posix_spawn_file_actions_t actions;
    if (pipe(output) < 0) return 1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", 0, 0);
    posix_spawn_file_actions_adddup2(&actions, output[1], 1);
    posix_spawn_file_actions_addclose(&actions, output[0]);
    posix_spawn_file_actions_addclose(&actions, output[1]);
    const double began = now();
    if (posix_spawnp(&pid, argv[2], &actions, NULL, argv + 2, environ) != 0) return 1;
    close(output[1]);
    while (read(output[0], bytes, sizeof bytes) > 0) {}
    wait4(pid, &status, 0, &usage);
    const double took = now() - began;
    close(output[0]);
    posix_spawn_file_actions_destroy(&actions);
    if (status != 0) return 1;
    printf("%.3f %.3f\n", took, milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime));
  }
  return 0;
}
