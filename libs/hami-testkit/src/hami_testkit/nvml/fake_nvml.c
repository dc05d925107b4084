/*
 * A libnvidia-ml.so.1 that does what a script says: the calls that our node-agent makes, with NVML's own structures.
 *
 * One rule: it knows nothing by itself. The script (FAKE_NVML names the file) is looked at anew at each call, so a
 * card falls off, or an XID comes, by replacing the file; MIG instances, which calls make, are in fake_mig.c. A line is
 * a key and its values:
 *
 *   driver 550.54.15
 *   cuda 12040
 *   card <i> uuid|name|memory|used|bus|mig|lost|recovery <value>     memory in bytes, or "unsupported"
 *   card <i> busy <percent of time computing> <accessing memory>
 *   card <i> needs_reset <1: MIG is turned on by a reset only>
 *   link <i> <number> gpu|switch <bus id of the other end>
 *   level <i> <j> <topology level>
 *   profile <i> <number> <slices> <instances> <multiprocessors> <MB> <start+size,start+size,...> <name>
 *   process <i> <number> compute|graphics <pid> <memory in bytes> <GPU instance, or -1>
 *   xid <sequence number> <i> <xid>                             told once to whoever waits, in order
 *   error <function> <code>                                     the function answers so
 *   hang <function>                                             the function does not return while this line stands
 */
#include <poll.h>
#include <pthread.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>

#include "fake_nvml.h"

enum { LARGEST = 1 << 20, XID_EVENT = 8, RECOVERY_ACTION = 230 };

typedef struct { char busIdLegacy[16]; unsigned domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32]; } Pci;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { void *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } Event;
typedef struct {
    unsigned field, scope; long long timestamp, latency; int type, result; unsigned long long value;
} FieldValue;

int handles[MOST_CARDS];
static int initialised, event_set;
static unsigned told;

static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;
static char script[LARGEST];
static struct stat seen;

/* Read the script where it is another file than before. */
static void read_script(void) {
    const char *path = getenv("FAKE_NVML");
    struct stat now = {0};
    FILE *file;
    if (path && !stat(path, &now) && now.st_ino == seen.st_ino && now.st_size == seen.st_size &&
        !memcmp(&now.st_mtim, &seen.st_mtim, sizeof now.st_mtim)) return;
    file = path ? fopen(path, "r") : NULL;
    script[file ? fread(script, 1, sizeof script - 1, file) : 0] = 0;
    if (file) fclose(file);
    seen = now;
}

/* Return whether a line of the script begins with these words, and what follows them. */
int look_up(const char *words, char *rest) {
    size_t length = strlen(words), left;
    int found = 0;
    pthread_mutex_lock(&reading);
    read_script();
    for (const char *line = script; *line && !found; line += strcspn(line, "\n"), line += *line == '\n') {
        found = !strncmp(line, words, length) && strchr(" \n", line[length]);
        if (!found || !rest) continue;
        line += length + (line[length] == ' ');
        left = strcspn(line, "\n");
        snprintf(rest, LINE, "%.*s", (int)left, line);
    }
    pthread_mutex_unlock(&reading);
    return found;
}

int of_card(int card, const char *what, char *value) {
    char words[LINE];
    snprintf(words, sizeof words, "card %d %s", card, what);
    return look_up(words, value);
}

/* Begin every call: hang, or answer with an error, where the script says so. */
int begin(const char *function) {
    char words[LINE], code[LINE];
    snprintf(words, sizeof words, "hang %s", function);
    while (look_up(words, NULL)) usleep(5000);
    snprintf(words, sizeof words, "error %s", function);
    if (look_up(words, code)) return atoi(code);
    return initialised || !strncmp(function, "nvmlInit", 8) ? SUCCESS : UNINITIALIZED;
}

int card_of(void *device) {
    int at = (int *)device - &mig_handles[0][0];
    return at >= 0 && at < MOST_CARDS * MOST_INSTANCES ? at / MOST_INSTANCES : (int)((int *)device - handles);
}

/* Begin a call about a card: one that is lost answers nothing else. */
int begin_of(const char *function, void *device) {
    char value[LINE];
    int code = begin(function);
    if (code) return code;
    return of_card(card_of(device), "lost", value) && atoi(value) ? IS_LOST : SUCCESS;
}

static int text(int card, const char *what, char *out, unsigned size) {
    char value[LINE];
    if (!of_card(card, what, value)) return NOT_SUPPORTED;
    snprintf(out, size, "%s", value);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    int code = begin("nvmlInitWithFlags");
    initialised += !code;   /* counted, as by the real one */
    return code;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    int code = begin("nvmlShutdown");
    initialised -= initialised > 0;
    return code;
}

const char *nvmlErrorString(int code) { return code == IS_LOST ? "GPU is lost" : "as the script says"; }

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    char value[LINE];
    int code = begin("nvmlSystemGetDriverVersion");
    if (code) return code;
    if (!look_up("driver", value)) return NOT_SUPPORTED;
    snprintf(out, size, "%s", value);
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion(int *version) {
    char value[LINE];
    int code = begin("nvmlSystemGetCudaDriverVersion");
    if (code) return code;
    if (!look_up("cuda", value)) return NOT_SUPPORTED;
    *version = atoi(value);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    char value[LINE];
    int code = begin("nvmlDeviceGetCount_v2");
    if (code) return code;
    for (*count = 0; *count < MOST_CARDS && of_card(*count, "uuid", value); ++*count);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    char value[LINE];
    int code = begin("nvmlDeviceGetHandleByIndex_v2");
    if (code) return code;
    if (index >= MOST_CARDS || !of_card(index, "uuid", value)) return INVALID;
    *device = &handles[index];
    return of_card(index, "lost", value) && atoi(value) ? IS_LOST : SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    char value[LINE];
    int code = begin("nvmlDeviceGetHandleByUUID");
    for (int card = 0; !code && card < MOST_CARDS && of_card(card, "uuid", value); card++)
        if (!strcmp(value, uuid)) return nvmlDeviceGetHandleByIndex_v2(card, device);
    return code ? code : NOT_FOUND;
}

int nvmlDeviceGetUUID(void *device, char *out, unsigned size) {
    int code = begin_of("nvmlDeviceGetUUID", device);
    if (!code && instance_of(device) >= 0) return mig_uuid(device, out, size);
    return code ? code : text(card_of(device), "uuid", out, size);
}

int nvmlDeviceGetName(void *device, char *out, unsigned size) {
    int code = begin_of("nvmlDeviceGetName", device);
    return code ? code : text(card_of(device), "name", out, size);
}

int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    char value[LINE];
    int code = begin_of("nvmlDeviceGetMemoryInfo", device);
    if (code) return code;
    if (!of_card(card_of(device), "memory", value) || !strcmp(value, "unsupported")) return NOT_SUPPORTED;
    memory->total = strtoull(value, NULL, 10);
    memory->used = of_card(card_of(device), "used", value) ? strtoull(value, NULL, 10) : 0;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMinorNumber(void *device, unsigned *minor) {
    int code = begin_of("nvmlDeviceGetMinorNumber", device);
    *minor = card_of(device);
    return code;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) {
    char value[LINE];
    int code = begin_of("nvmlDeviceGetUtilizationRates", device);
    if (code) return code;
    if (!of_card(card_of(device), "busy", value)) return NOT_SUPPORTED;
    return sscanf(value, "%u %u", &rates[0], &rates[1]) == 2 ? SUCCESS : INVALID;
}

int nvmlDeviceGetPciInfo_v3(void *device, Pci *pci) {
    int code = begin_of("nvmlDeviceGetPciInfo_v3", device);
    memset(pci, 0, sizeof *pci);
    return code ? code : text(card_of(device), "bus", pci->busId, sizeof pci->busId);
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    int code = begin_of("nvmlDeviceGetMigMode", device);
    return code ? code : mig_mode(card_of(device), current, pending);
}

int nvmlDeviceGetFieldValues(void *device, int count, FieldValue *values) {
    char value[LINE];
    int code = begin_of("nvmlDeviceGetFieldValues", device);
    for (int i = 0; !code && i < count; i++) {
        int known = values[i].field == RECOVERY_ACTION && of_card(card_of(device), "recovery", value);
        values[i].result = known ? SUCCESS : NOT_SUPPORTED;
        values[i].type = 1;
        values[i].value = known ? strtoull(value, NULL, 10) : 0;
    }
    return code;
}

/* Find one of a card's MIG profiles by NVML's number; its id is another number, as with real cards. */
int find_profile(int card, unsigned number, Profile *profile, char *placements, char *name) {
    char words[LINE], value[LINE];
    snprintf(words, sizeof words, "profile %d %u", card, number);
    if (!look_up(words, value)) return NOT_SUPPORTED;
    memset(profile, 0, sizeof *profile);
    profile->id = number + 100;
    *name = 0;
    sscanf(value, "%u %u %u %llu %s %s", &profile->slices, &profile->instances, &profile->sms, &profile->mb, placements,
           name);
    return SUCCESS;
}

int nvmlDeviceGetTopologyCommonAncestor(void *one, void *other, int *level) {
    char words[LINE], value[LINE];
    int a = card_of(one), b = card_of(other), code = begin_of("nvmlDeviceGetTopologyCommonAncestor", one);
    if (code) return code;
    snprintf(words, sizeof words, "level %d %d", a < b ? a : b, a < b ? b : a);
    if (!look_up(words, value)) return NOT_SUPPORTED;
    *level = atoi(value);
    return SUCCESS;
}

static int find_link(void *device, unsigned link, char *kind, char *bus) {
    char words[LINE], value[LINE];
    snprintf(words, sizeof words, "link %d %u", card_of(device), link);
    return look_up(words, value) && sscanf(value, "%s %s", kind, bus) == 2 ? SUCCESS : INVALID;
}

int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *active) {
    char kind[LINE], bus[LINE];
    int code = begin_of("nvmlDeviceGetNvLinkState", device);
    if (!code) *active = !(code = find_link(device, link, kind, bus));
    return code;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(void *device, unsigned link, int *type) {
    char kind[LINE], bus[LINE];
    int code = begin_of("nvmlDeviceGetNvLinkRemoteDeviceType", device);
    if (!code && !(code = find_link(device, link, kind, bus))) *type = strcmp(kind, "gpu") ? 2 : 0;
    return code;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, Pci *pci) {
    char kind[LINE], bus[LINE];
    int code = begin_of("nvmlDeviceGetNvLinkRemotePciInfo_v2", device);
    memset(pci, 0, sizeof *pci);
    if (!code && !(code = find_link(device, link, kind, bus))) snprintf(pci->busId, sizeof pci->busId, "%.31s", bus);
    return code;
}

int nvmlDeviceGetSupportedEventTypes(void *device, unsigned long long *types) {
    int code = begin_of("nvmlDeviceGetSupportedEventTypes", device);
    *types = XID_EVENT;
    return code;
}

int nvmlEventSetCreate(void **set) {
    *set = &event_set;
    return begin("nvmlEventSetCreate");
}

int nvmlEventSetFree(void *set) { return begin("nvmlEventSetFree"); }

int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) {
    return begin_of("nvmlDeviceRegisterEvents", device);
}

/* Open what tells that the script's folder has changed. */
static int open_changes(void) {
    char folder[LINE];
    const char *path = getenv("FAKE_NVML");
    int changes = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    snprintf(folder, sizeof folder, "%.*s", path ? (int)(strrchr(path, '/') - path) : 0, path ? path : "");
    inotify_add_watch(changes, folder, IN_MOVED_TO);
    return changes;
}

/* Return the number of the first XID that was not told yet, 0 where there is none. */
static unsigned next_xid(unsigned *card, unsigned *xid) {
    unsigned first = 0, number, of, what;
    pthread_mutex_lock(&reading);
    read_script();
    for (const char *line = script; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        if (sscanf(line, "xid %u %u %u", &number, &of, &what) != 3 || number <= told || (first && number > first))
            continue;
        first = number, *card = of, *xid = what;
    }
    pthread_mutex_unlock(&reading);
    return first;
}

static long now_in_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int nvmlEventSetWait_v2(void *set, Event *event, unsigned milliseconds) {
    char news[LINE];
    unsigned number, card, xid;
    int code, changes = open_changes();
    long left, end = now_in_ms() + milliseconds;
    for (;;) {
        code = begin("nvmlEventSetWait_v2");
        if (code) usleep(5000);  /* whoever asks again at once must not spin */
        if (code) break;
        if ((number = next_xid(&card, &xid))) {
            told = number;
            *event = (Event){&handles[card], XID_EVENT, xid, ALL_INSTANCES, ALL_INSTANCES};
            break;
        }
        left = end - now_in_ms();
        code = left > 0 ? SUCCESS : TIMEOUT;
        if (code) break;
        poll(&(struct pollfd){changes, POLLIN, 0}, 1, left);
        while (read(changes, news, sizeof news) > 0);
    }
    close(changes);
    return code;
}
