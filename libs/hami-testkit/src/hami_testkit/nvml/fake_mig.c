/*
 * MIG of the stand-in of libnvidia-ml.so.1: profiles, placements, GPU and compute instances, and who computes on them.
 *
 * One rule: what calls have made stands in one file beside the script (FAKE_NVML with .mig), so that it outlives a
 * process, as on a card, and a test can look at it or add to it. A line of it is one of
 *
 *   mode <i> <now> <pending>                                         of a card that was told to turn MIG on
 *   instance <i> <GPU instance> <profile's number> <start> <size> <compute instance, or -1>
 */
#include <pthread.h>

#include "fake_nvml.h"

enum { MOST = 64, PROFILES = 32, FULL = 8, NAME = 96, NO_INSTANCE = -1 };

typedef struct { int card; unsigned id, number; Placement at; int compute; } Instance;
typedef struct {
    unsigned version, id, p2p, slices, instances, sms, ce, dec, enc, jpeg, ofa; unsigned long long mb; char name[NAME];
} ProfileV2;
typedef struct { void *device; unsigned id, profile; Placement at; } InstanceInfo;
typedef struct { void *device, *instance; unsigned id, profile; Placement at; } ComputeInfo;
typedef struct { unsigned id, slices, instances, sms, ce, dec, enc, jpeg, ofa; } ComputeProfile;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } Process;

int mig_handles[MOST_CARDS][MOST_INSTANCES];
static int gi_handles[MOST_CARDS][MOST_INSTANCES], ci_handles[MOST_CARDS][MOST_INSTANCES];
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static const unsigned COMPUTE_SLICES[] = {1, 2, 3, 4, 7, 8, 6};   /* by NVML's number of a compute instance's profile */

/* What was made: read at the beginning of each call, written at its end. */
static struct { Instance made[MOST]; int count; int current[MOST_CARDS], pending[MOST_CARDS]; } state;

static void path_of_state(char *path) { snprintf(path, LINE, "%s.mig", getenv("FAKE_NVML")); }

static void read_state(void) {
    char path[LINE], line[LINE];
    unsigned card, now, then;
    path_of_state(path);
    state.count = 0;
    memset(state.current, -1, sizeof state.current);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        Instance *i = &state.made[state.count];
        if (sscanf(line, "mode %u %u %u", &card, &now, &then) == 3)
            state.current[card] = now, state.pending[card] = then;
        else if (sscanf(line, "instance %d %u %u %u %u %d", &i->card, &i->id, &i->number, &i->at.start, &i->at.size,
                        &i->compute) == 6)
            state.count++;
    }
    if (file) fclose(file);
}

static void write_state(void) {
    char path[LINE], new[LINE + 8];
    path_of_state(path);
    snprintf(new, sizeof new, "%s.new", path);
    FILE *file = fopen(new, "w");
    for (int c = 0; c < MOST_CARDS; c++)
        if (state.current[c] >= 0) fprintf(file, "mode %d %d %d\n", c, state.current[c], state.pending[c]);
    for (int n = 0; n < state.count; n++) {
        Instance *i = &state.made[n];
        fprintf(file, "instance %d %u %u %u %u %d\n", i->card, i->id, i->number, i->at.start, i->at.size, i->compute);
    }
    fclose(file);
    rename(new, path);
}

/* Begin a call about an instance or its card; a call that begins well must end by leave(). */
static int enter(const char *function, void *card) {
    int code = begin_of(function, card);
    if (code) return code;
    pthread_mutex_lock(&one_at_a_time);
    read_state();
    return SUCCESS;
}

static int leave(int code) {
    pthread_mutex_unlock(&one_at_a_time);
    return code;
}

static void *card_at(void *handle, void *first) { return &handles[((int *)handle - (int *)first) / MOST_INSTANCES]; }
static int id_at(void *handle, void *first) { return ((int *)handle - (int *)first) % MOST_INSTANCES; }

static Instance *find(void *handle, void *first) {
    int card = card_of(card_at(handle, first)), id = id_at(handle, first);
    for (int n = 0; n < state.count; n++)
        if (state.made[n].card == card && (int)state.made[n].id == id) return &state.made[n];
    return NULL;
}

static void forget(Instance *gone) {
    *gone = state.made[--state.count];
    write_state();
}

static int is_computing(int card, int instance) {
    char words[LINE], value[LINE];
    int on;
    for (int n = 0; snprintf(words, sizeof words, "process %d %d", card, n), look_up(words, value); n++)
        if (sscanf(value, "%*s %*d %*u %d", &on) == 1 && on == instance) return 1;
    return 0;
}

int instance_of(void *device) {
    int at = (int *)device - &mig_handles[0][0];
    return at >= 0 && at < MOST_CARDS * MOST_INSTANCES ? at % MOST_INSTANCES : NO_INSTANCE;
}

int mig_uuid(void *device, char *out, unsigned size) {
    char card[LINE];
    of_card(card_of(device), "uuid", card);
    snprintf(out, size, "MIG-%.60s-%d", card, instance_of(device));
    return SUCCESS;
}

/* Whether MIG is on */

int mig_mode(int card, unsigned *current, unsigned *pending) {
    char value[LINE];
    if (!of_card(card, "mig", value)) return NOT_SUPPORTED;
    pthread_mutex_lock(&one_at_a_time);
    read_state();
    *current = state.current[card] < 0 ? atoi(value) : state.current[card];
    *pending = state.current[card] < 0 ? atoi(value) : state.pending[card];
    return leave(SUCCESS);
}

static int is_on(void *device) {
    unsigned current = 0, pending;
    return mig_mode(card_of(device), &current, &pending) == SUCCESS && current;
}

int nvmlDeviceSetMigMode(void *device, unsigned mode, int *status) {
    char value[LINE];
    unsigned current, pending;
    int card = card_of(device), code = begin_of("nvmlDeviceSetMigMode", device);
    if (code || (code = mig_mode(card, &current, &pending))) return code;
    int is_later = of_card(card, "needs_reset", value) && atoi(value);
    enter("nvmlDeviceSetMigMode", device);
    state.pending[card] = mode;
    state.current[card] = is_later ? current : mode;
    write_state();
    *status = is_later ? IN_USE : SUCCESS;
    return leave(SUCCESS);
}

/* How a card can be cut */

int nvmlDeviceGetGpuInstanceProfileInfo(void *device, unsigned number, Profile *profile) {
    char placements[LINE], name[LINE];
    int code = begin_of("nvmlDeviceGetGpuInstanceProfileInfo", device);
    return code ? code : find_profile(card_of(device), number, profile, placements, name);
}

int nvmlDeviceGetGpuInstanceProfileInfoV(void *device, unsigned number, ProfileV2 *info) {
    char placements[LINE], name[LINE];
    Profile p;
    int code = begin_of("nvmlDeviceGetGpuInstanceProfileInfoV", device);
    if (code || (code = find_profile(card_of(device), number, &p, placements, name))) return code;
    *info = (ProfileV2){.version = info->version, .id = p.id, .slices = p.slices, .instances = p.instances,
                        .sms = p.sms, .mb = p.mb};
    snprintf(info->name, NAME, "MIG %.80s", name);
    return SUCCESS;
}

static unsigned places(int card, unsigned number, Placement *out, unsigned room) {
    char text[LINE], name[LINE], *next;
    Profile profile;
    unsigned count = 0;
    if (find_profile(card, number, &profile, text, name)) return 0;
    for (char *one = strtok_r(text, ",", &next); one; one = strtok_r(NULL, ",", &next), count++)
        if (out && count < room) sscanf(one, "%u+%u", &out[count].start, &out[count].size);
    return count;
}

int nvmlDeviceGetGpuInstancePossiblePlacements_v2(void *device, unsigned id, Placement *out, unsigned *count) {
    int code = begin_of("nvmlDeviceGetGpuInstancePossiblePlacements_v2", device);
    if (code) return code;
    if (!is_on(device)) return NOT_SUPPORTED;
    *count = places(card_of(device), id - 100, out, *count);
    return *count ? SUCCESS : INVALID;
}

/* GPU instances, whose ids follow from their places, and so do the uuids of MIG devices, as on real cards */

static unsigned id_of(Placement at) {
    return at.size >= 8 ? 0 : at.size >= 4 ? 1 + at.start / 4 : at.size >= 2 ? 3 + at.start / 2 : 7 + at.start;
}

int nvmlDeviceCreateGpuInstanceWithPlacement(void *device, unsigned profile, const Placement *at, void **instance) {
    Placement possible[PROFILES];
    int card = card_of(device), is_possible = 0;
    int code = begin_of("nvmlDeviceCreateGpuInstanceWithPlacement", device);
    if (code) return code;
    if (!is_on(device)) return NOT_SUPPORTED;
    unsigned count = places(card, profile - 100, possible, PROFILES);
    for (unsigned n = 0; n < count; n++) is_possible |= possible[n].start == at->start && possible[n].size == at->size;
    if (!is_possible) return INVALID;
    enter("nvmlDeviceCreateGpuInstanceWithPlacement", device);
    for (int n = 0; n < state.count; n++) {
        Instance *i = &state.made[n];
        if (i->card == card && i->at.start < at->start + at->size && at->start < i->at.start + i->at.size)
            return leave(INSUFFICIENT_RESOURCES);
    }
    unsigned id = id_of(*at);
    state.made[state.count++] = (Instance){card, id, profile - 100, *at, NO_INSTANCE};
    write_state();
    *instance = &gi_handles[card][id];
    return leave(SUCCESS);
}

int nvmlDeviceGetGpuInstanceById(void *device, unsigned id, void **instance) {
    int code = enter("nvmlDeviceGetGpuInstanceById", device);
    if (code) return code;
    *instance = &gi_handles[card_of(device)][id];
    return leave(find(*instance, gi_handles) ? SUCCESS : NOT_FOUND);
}

int nvmlDeviceGetGpuInstances(void *device, unsigned profile, void **instances, unsigned *count) {
    int card = card_of(device), code = begin_of("nvmlDeviceGetGpuInstances", device);
    if (code) return code;
    if (!is_on(device)) return NOT_SUPPORTED;
    enter("nvmlDeviceGetGpuInstances", device);
    *count = 0;
    for (int n = 0; n < state.count; n++)
        if (state.made[n].card == card && state.made[n].number + 100 == profile)
            instances[(*count)++] = &gi_handles[card][state.made[n].id];
    return leave(SUCCESS);
}

int nvmlGpuInstanceGetInfo(void *instance, InstanceInfo *info) {
    void *card = card_at(instance, gi_handles);
    int code = enter("nvmlGpuInstanceGetInfo", card);
    if (code) return code;
    Instance *found = find(instance, gi_handles);
    if (found) *info = (InstanceInfo){card, found->id, found->number + 100, found->at};
    return leave(found ? SUCCESS : NOT_FOUND);
}

int nvmlGpuInstanceDestroy(void *instance) {
    int code = enter("nvmlGpuInstanceDestroy", card_at(instance, gi_handles));
    if (code) return code;
    Instance *found = find(instance, gi_handles);
    if (!found) return leave(NOT_FOUND);
    if (found->compute != NO_INSTANCE) return leave(IN_USE);
    forget(found);
    return leave(SUCCESS);
}

/* Compute instances: one of full size each, number 0 */

int nvmlGpuInstanceGetComputeInstanceProfileInfo(void *instance, unsigned number, unsigned engine,
                                                 ComputeProfile *info) {
    char places_[LINE], name[LINE];
    Profile profile;
    int code = enter("nvmlGpuInstanceGetComputeInstanceProfileInfo", card_at(instance, gi_handles));
    if (code) return code;
    Instance *found = find(instance, gi_handles);
    if (!found) return leave(NOT_FOUND);
    find_profile(found->card, found->number, &profile, places_, name);
    if (engine || number >= sizeof COMPUTE_SLICES / sizeof *COMPUTE_SLICES || COMPUTE_SLICES[number] > profile.slices)
        return leave(NOT_SUPPORTED);
    *info = (ComputeProfile){number + 200, COMPUTE_SLICES[number], 1, profile.sms};
    return leave(SUCCESS);
}

int nvmlGpuInstanceCreateComputeInstance(void *instance, unsigned profile, void **compute) {
    void *card = card_at(instance, gi_handles);
    int code = enter("nvmlGpuInstanceCreateComputeInstance", card);
    if (code) return code;
    Instance *found = find(instance, gi_handles);
    if (!found) return leave(NOT_FOUND);
    if (found->compute != NO_INSTANCE) return leave(INSUFFICIENT_RESOURCES);
    found->compute = 0;
    write_state();
    *compute = &ci_handles[found->card][found->id];
    return leave(SUCCESS);
}

int nvmlGpuInstanceGetComputeInstanceById(void *instance, unsigned id, void **compute) {
    int code = enter("nvmlGpuInstanceGetComputeInstanceById", card_at(instance, gi_handles));
    if (code) return code;
    Instance *found = find(instance, gi_handles);
    if (found) *compute = &ci_handles[found->card][found->id];
    return leave(found && found->compute == (int)id ? SUCCESS : NOT_FOUND);
}

int nvmlComputeInstanceGetInfo_v2(void *compute, ComputeInfo *info) {
    void *card = card_at(compute, ci_handles);
    int code = enter("nvmlComputeInstanceGetInfo_v2", card);
    if (code) return code;
    Instance *found = find(compute, ci_handles);
    if (found)
        *info = (ComputeInfo){card, &gi_handles[found->card][found->id], found->compute, 200, {0, found->at.size}};
    return leave(found ? SUCCESS : NOT_FOUND);
}

int nvmlComputeInstanceDestroy(void *compute) {
    int code = enter("nvmlComputeInstanceDestroy", card_at(compute, ci_handles));
    if (code) return code;
    Instance *found = find(compute, ci_handles);
    if (!found) return leave(NOT_FOUND);
    if (is_computing(found->card, found->id)) return leave(IN_USE);
    found->compute = NO_INSTANCE;
    write_state();
    return leave(SUCCESS);
}

/* MIG devices: what containers are given */

int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
    int code = begin_of("nvmlDeviceGetMaxMigDeviceCount", device);
    *count = code ? 0 : FULL;
    return code;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **mig) {
    int card = card_of(device), code = enter("nvmlDeviceGetMigDeviceHandleByIndex", device);
    if (code) return code;
    for (int n = 0; n < state.count; n++)
        if (state.made[n].card == card && state.made[n].compute != NO_INSTANCE && !index--) {
            *mig = &mig_handles[card][state.made[n].id];
            return leave(SUCCESS);
        }
    return leave(NOT_FOUND);
}

int nvmlDeviceGetGpuInstanceId(void *mig, unsigned *id) {
    int code = begin_of("nvmlDeviceGetGpuInstanceId", mig);
    *id = instance_of(mig);
    return code;
}

int nvmlDeviceGetComputeInstanceId(void *mig, unsigned *id) {
    int code = begin_of("nvmlDeviceGetComputeInstanceId", mig);
    *id = 0;
    return code;
}

/* Who computes or draws; asked of a card, on all its instances */

static int processes(const char *function, void *device, const char *wanted, unsigned *count, Process *out) {
    char words[LINE], value[LINE], kind[LINE];
    Process one;
    int on, room = *count, card = card_of(device), code = begin_of(function, device);
    if (code) return code;
    *count = 0;
    for (int n = 0; snprintf(words, sizeof words, "process %d %d", card, n), look_up(words, value); n++) {
        if (sscanf(value, "%s %u %llu %d", kind, &one.pid, &one.memory, &on) != 4 || strcmp(kind, wanted)) continue;
        if (instance_of(device) >= 0 && on != instance_of(device)) continue;
        one.gpu_instance = on, one.compute_instance = on < 0 ? on : 0;
        if ((int)*count < room && out) out[*count] = one;
        ++*count;
    }
    return (int)*count > room || (*count && !out) ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, Process *out) {
    return processes("nvmlDeviceGetComputeRunningProcesses_v3", device, "compute", count, out);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, Process *out) {
    return processes("nvmlDeviceGetGraphicsRunningProcesses_v3", device, "graphics", count, out);
}
