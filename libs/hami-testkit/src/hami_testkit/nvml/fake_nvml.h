/* What the two halves of the stand-in of libnvidia-ml.so.1 share: NVML's numbers and structures, and the script. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10,
    IS_LOST = 15, IN_USE = 19, INSUFFICIENT_RESOURCES = 23
};
enum { MOST_CARDS = 16, MOST_INSTANCES = 16, LINE = 512, ALL_INSTANCES = -1 };

typedef struct { unsigned id, p2p, slices, instances, sms, ce, dec, enc, jpeg, ofa; unsigned long long mb; } Profile;
typedef struct { unsigned start, size; } Placement;

extern int handles[MOST_CARDS];                      /* a card's handle is the address of its place */
extern int mig_handles[MOST_CARDS][MOST_INSTANCES];  /* that of a MIG device: card and GPU instance */

int look_up(const char *words, char *rest);
int of_card(int card, const char *what, char *value);
int begin(const char *function);
int begin_of(const char *function, void *device);
int card_of(void *device);
int instance_of(void *device);   /* the GPU instance of a MIG device; -1: it is a card */
int find_profile(int card, unsigned number, Profile *profile, char *placements, char *name);
int mig_mode(int card, unsigned *current, unsigned *pending);
int mig_uuid(void *device, char *out, unsigned size);
