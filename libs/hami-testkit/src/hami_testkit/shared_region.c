/*
 * A process under HAMi-core, as far as its shared region shows: the structures are laid out as libvgpu.so's.
 *
 *   shared_region <file> 0|1 <uuid> <uuid>
 *
 * writes a region of layout 0 or 1 with two cards and three processes, of which the second is dead:
 * card c of process p uses (p + 1) * 1000 + c of context, twice that of data, their sum in total, and 10 * (p + 1) + c
 * percent; limits are 1 GiB and 2 GiB, core limits 30 and 60.
 */
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAGIC = 19920718, CARDS = 16, PROCESSES = 1024 };

typedef struct { uint64_t context, module, data, offset, total, unused[3]; } Memory1;
typedef struct { uint64_t dec, enc, sm, unused[3]; } Use1;
typedef struct {
    int32_t pid, hostpid;
    Memory1 used[CARDS];
    uint64_t monitorused[CARDS];
    Use1 use[CARDS];
    int32_t status;
    uint64_t seqlock, unused[2];
} Slot1;
typedef struct {
    int32_t initialized;
    uint32_t major, minor;
    int32_t sm_init;
    uint64_t owner;
    sem_t sem;
    uint64_t device_num;
    char uuids[CARDS][96];
    uint64_t limit[CARDS], sm_limit[CARDS];
    Slot1 procs[PROCESSES];
    int32_t proc_num, utilization_switch, recent_kernel, priority;
    uint64_t last_kernel_time;
    sem_t sem_postinit;
} Region1;

typedef struct { uint64_t context, module, data, offset, total; } Memory0;
typedef struct { uint64_t dec, enc, sm; } Use0;
typedef struct {
    int32_t pid, hostpid;
    Memory0 used[CARDS];
    uint64_t monitorused[CARDS];
    Use0 use[CARDS];
    int32_t status;
} Slot0;
typedef struct {
    int32_t initialized, sm_init;
    uint32_t owner;
    char sem[sizeof(sem_t)];
    uint64_t device_num;
    char uuids[CARDS][96];
    uint64_t limit[CARDS], sm_limit[CARDS];
    Slot0 procs[PROCESSES];
    int32_t proc_num, utilization_switch, recent_kernel, priority;
} Region0;

_Static_assert(sizeof(Region1) == 2008952, "layout 1");
_Static_assert(sizeof(Region0) == 1197896, "layout 0");

#define FILL(region, uuids_of)                                                                   \
    do {                                                                                         \
        (region)->device_num = 2;                                                                \
        for (int c = 0; c < 2; c++) {                                                            \
            strcpy((region)->uuids[c], (uuids_of)[c]);                                           \
            (region)->limit[c] = (uint64_t)(c + 1) << 30;                                        \
            (region)->sm_limit[c] = 30 * (c + 1);                                                \
        }                                                                                        \
        for (int p = 0; p < 3; p++) {                                                            \
            (region)->procs[p].pid = p == 1 ? 0 : 100 + p;                                       \
            (region)->procs[p].hostpid = 9000 + p;                                               \
            (region)->procs[p].status = p != 1;                                                  \
            for (int c = 0; c < 2; c++) {                                                        \
                (region)->procs[p].used[c].context = (p + 1) * 1000 + c;                         \
                (region)->procs[p].used[c].data = 2 * ((p + 1) * 1000 + c);                      \
                (region)->procs[p].used[c].total = 3 * ((p + 1) * 1000 + c);                     \
                (region)->procs[p].use[c].sm = 10 * (p + 1) + c;                                 \
            }                                                                                    \
        }                                                                                        \
        (region)->proc_num = 3;                                                                  \
        (region)->utilization_switch = 1;                                                        \
        (region)->recent_kernel = 2;                                                             \
        (region)->priority = 1;                                                                  \
        (region)->initialized = MAGIC;                                                           \
    } while (0)

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int is_new = atoi(argv[2]);
    size_t size = is_new ? sizeof(Region1) : sizeof(Region0);
    void *region = calloc(1, size + 1);
    if (is_new) {
        Region1 *one = region;
        one->major = 1;
        one->minor = 2;
        one->last_kernel_time = 1700000000;
        FILL(one, argv + 3);
    } else {
        Region0 *zero = region;
        FILL(zero, argv + 3);
    }
    int file = open(argv[1], O_RDWR | O_CREAT, 0666);
    return file < 0 || write(file, region, size + 1) != (ssize_t)(size + 1);
}
