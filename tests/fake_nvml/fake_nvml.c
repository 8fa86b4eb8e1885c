/* A libnvidia-ml.so.1 for tests: it answers from one file that every process maps (layout.py is the layout's home).
 * It is no device and says so: driver version 999.01.fake, names that start with "Fake". */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "layout.h"

enum {
  SUCCESS = 0,
  UNINITIALIZED = 1,
  INVALID_ARGUMENT = 2,
  NOT_SUPPORTED = 3,
  NOT_FOUND = 6,
  INSUFFICIENT_SIZE = 7,
  DRIVER_NOT_LOADED = 9,
  TIMED_OUT = 10,
  GPU_IS_LOST = 15,
  NOT_ENOUGH_MEMORY = 20,
  VERSION_MISMATCH = 25,
};
typedef int nvmlReturn_t;
#define API __attribute__((visibility("default"))) nvmlReturn_t

struct handle {
  uint32_t gpu, instance; /* instance == MAX_INSTANCES: the whole GPU */
};
typedef const struct handle *nvmlDevice_t;

static struct handle handles[MAX_GPUS][MAX_INSTANCES + 1];
static struct state *state;
static uint64_t generation;
static int references;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- the library ---- */

static nvmlReturn_t map_state(void) {
  const char *path = getenv("LEPTON_RL_FAKE_NVML");
  int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (file < 0) return DRIVER_NOT_LOADED;
  struct stat status;
  void *mapped = MAP_FAILED;
  if (fstat(file, &status) == 0 && (size_t)status.st_size >= sizeof(struct state))
    mapped = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return DRIVER_NOT_LOADED;
  if (((struct state *)mapped)->magic != MAGIC) {
    munmap(mapped, sizeof(struct state));
    return DRIVER_NOT_LOADED;
  }
  for (uint32_t i = 0; i < MAX_GPUS; i++)
    for (uint32_t j = 0; j <= MAX_INSTANCES; j++) handles[i][j] = (struct handle){i, j};
  state = mapped;
  return SUCCESS;
}

API nvmlInitWithFlags(unsigned int flags) {
  (void)flags;
  pthread_mutex_lock(&lock);
  nvmlReturn_t answer = references > 0 ? SUCCESS : map_state();
  if (answer == SUCCESS && !state->driver_loaded) answer = DRIVER_NOT_LOADED;
  if (answer == SUCCESS) {
    if (references == 0) generation = state->generation; /* one more user does not start the library anew */
    references++;
  }
  pthread_mutex_unlock(&lock);
  return answer;
}
API nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API nvmlInit(void) { return nvmlInitWithFlags(0); }

API nvmlShutdown(void) {
  pthread_mutex_lock(&lock);
  nvmlReturn_t answer = references > 0 ? SUCCESS : UNINITIALIZED;
  if (references > 0) references--; /* the mapping stays: threads may still be in a query */
  pthread_mutex_unlock(&lock);
  return answer;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(nvmlReturn_t code) {
  switch (code) {
    case SUCCESS: return "The operation was successful";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case TIMED_OUT: return "Timeout";
    case GPU_IS_LOST: return "GPU is lost";
    case VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
  }
}

static void sleep_ms(uint32_t ms) {
  struct timespec pause = {ms / 1000, (long)(ms % 1000) * 1000000};
  nanosleep(&pause, NULL);
}

/* Every query starts here: initialised? is a rule set for it? */
static nvmlReturn_t enter(const char *query, int gpu) {
  if (references == 0 || generation != state->generation || !state->driver_loaded) return UNINITIALIZED;
  for (uint32_t i = 0; i < state->rule_count && i < MAX_RULES; i++) {
    struct rule *rule = &state->rules[i];
    if ((rule->gpu >= 0 && rule->gpu != gpu) || strcmp(rule->query, query) != 0) continue;
    __atomic_fetch_add(&rule->hits, 1, __ATOMIC_RELAXED);
    if (rule->delay_ms) sleep_ms(rule->delay_ms);
    if (rule->error) return (nvmlReturn_t)rule->error;
  }
  return SUCCESS;
}

static nvmlReturn_t enter_device(const char *query, nvmlDevice_t device, struct gpu **gpu, struct instance **part) {
  if (references == 0) return UNINITIALIZED;
  if (device < &handles[0][0] || device > &handles[MAX_GPUS - 1][MAX_INSTANCES] || device->gpu >= state->gpu_count)
    return INVALID_ARGUMENT;
  nvmlReturn_t answer = enter(query, (int)device->gpu);
  if (answer != SUCCESS) return answer;
  *gpu = &state->gpus[device->gpu];
  *part = device->instance == MAX_INSTANCES ? NULL : &(*gpu)->instances[device->instance];
  return (*gpu)->lost ? GPU_IS_LOST : SUCCESS;
}

#define SYSTEM()                                     \
  do {                                               \
    nvmlReturn_t answer_ = enter(__func__, -1);      \
    if (answer_ != SUCCESS) return answer_;          \
  } while (0)
/* DEVICE: gpu and, for a MIG handle, part. WHOLE: the same, refused for a MIG handle. */
#define DEVICE()                                                      \
  struct gpu *gpu;                                                    \
  struct instance *part;                                              \
  do {                                                                \
    nvmlReturn_t answer_ = enter_device(__func__, device, &gpu, &part); \
    if (answer_ != SUCCESS) return answer_;                           \
  } while (0)
#define WHOLE() \
  DEVICE();     \
  if (part) return NOT_SUPPORTED
#define GETTER(function, type, value)              \
  API function(nvmlDevice_t device, type *out) {   \
    WHOLE();                                       \
    *out = (type)(value);                          \
    return SUCCESS;                                \
  }

static nvmlReturn_t put(char *out, unsigned int length, const char *text) {
  if (strlen(text) + 1 > length) return INSUFFICIENT_SIZE;
  strcpy(out, text);
  return SUCCESS;
}

API nvmlSystemGetDriverVersion(char *out, unsigned int length) {
  SYSTEM();
  return put(out, length, state->driver_version);
}
API nvmlSystemGetNVMLVersion(char *out, unsigned int length) {
  SYSTEM();
  return put(out, length, "13.999.01.fake");
}
API nvmlSystemGetCudaDriverVersion(int *out) {
  SYSTEM();
  *out = 13000;
  return SUCCESS;
}
API nvmlSystemGetCudaDriverVersion_v2(int *out) {
  SYSTEM();
  *out = 13000;
  return SUCCESS;
}
API nvmlSystemGetProcessName(unsigned int pid, char *out, unsigned int length) {
  SYSTEM();
  char path[64], name[64] = "";
  snprintf(path, sizeof path, "/proc/%u/comm", pid);
  FILE *file = fopen(path, "r");
  if (!file) return NOT_FOUND;
  if (fgets(name, sizeof name, file)) name[strcspn(name, "\n")] = 0;
  fclose(file);
  return put(out, length, name);
}

/* ---- identity ---- */

API nvmlDeviceGetCount_v2(unsigned int *out) {
  SYSTEM();
  *out = state->gpu_count;
  return SUCCESS;
}

static nvmlReturn_t whole_handle(const char *query, uint32_t index, nvmlDevice_t *out) {
  if (references > 0 && index >= state->gpu_count) return INVALID_ARGUMENT;
  nvmlReturn_t answer = enter(query, (int)index);
  if (answer != SUCCESS) return answer;
  if (state->gpus[index].lost) return GPU_IS_LOST;
  *out = &handles[index][MAX_INSTANCES];
  return SUCCESS;
}
API nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *out) { return whole_handle(__func__, index, out); }

API nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out) {
  SYSTEM();
  for (uint32_t i = 0; i < state->gpu_count; i++) {
    if (strcmp(state->gpus[i].uuid, uuid) == 0) return whole_handle(__func__, i, out);
    for (uint32_t j = 0; j < state->gpus[i].instance_count; j++)
      if (strcmp(state->gpus[i].instances[j].uuid, uuid) == 0) {
        *out = &handles[i][j];
        return SUCCESS;
      }
  }
  return NOT_FOUND;
}

struct pci_info {
  char legacy_id[16];
  uint32_t domain, bus, device, device_id, subsystem_id;
  char id[32];
};
_Static_assert(sizeof(struct pci_info) == 68, "nvmlPciInfo_t");

static void pci_of(const struct gpu *gpu, struct pci_info *out) {
  memset(out, 0, sizeof *out);
  out->domain = gpu->pci_domain, out->bus = gpu->pci_bus, out->device = gpu->pci_device;
  out->device_id = 0x20B010DE;
  snprintf(out->legacy_id, sizeof out->legacy_id, "%04X:%02X:%02X.0", gpu->pci_domain & 0xFFFF, gpu->pci_bus & 0xFF,
           gpu->pci_device & 0xFF);
  snprintf(out->id, sizeof out->id, "%08X:%02X:%02X.0", gpu->pci_domain, gpu->pci_bus, gpu->pci_device);
}
API nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, struct pci_info *out) {
  DEVICE();
  (void)part;
  pci_of(gpu, out);
  return SUCCESS;
}
API nvmlDeviceGetHandleByPciBusId_v2(const char *id, nvmlDevice_t *out) {
  SYSTEM();
  for (uint32_t i = 0; i < state->gpu_count; i++) {
    struct pci_info info;
    pci_of(&state->gpus[i], &info);
    if (strcasecmp(info.id, id) == 0 || strcasecmp(info.legacy_id, id) == 0) return whole_handle(__func__, i, out);
  }
  return NOT_FOUND;
}
API nvmlDeviceGetName(nvmlDevice_t device, char *out, unsigned int length) {
  DEVICE();
  return put(out, length, part ? part->name : gpu->name);
}
API nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned int length) {
  DEVICE();
  return put(out, length, part ? part->uuid : gpu->uuid);
}
API nvmlDeviceGetSerial(nvmlDevice_t device, char *out, unsigned int length) {
  WHOLE();
  return put(out, length, gpu->serial);
}
API nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *out) {
  DEVICE();
  (void)gpu;
  *out = part ? device->instance : device->gpu;
  return SUCCESS;
}
API nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *out) {
  WHOLE();
  (void)gpu;
  *out = device->gpu;
  return SUCCESS;
}
API nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
  DEVICE();
  (void)gpu, (void)part;
  *major = 8, *minor = 0;
  return SUCCESS;
}

/* ---- processes and memory ---- */

static int is_alive(uint32_t pid) {
  char path[32], text[512];
  snprintf(path, sizeof path, "/proc/%u/stat", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  size_t size = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[size] = 0;
  const char *name_end = strrchr(text, ')');
  return name_end && name_end[1] && name_end[2] != 'Z' && name_end[2] != 'X'; /* the driver forgets zombies too */
}

static int is_of(const struct process *process, const struct instance *part) {
  return !part || (process->gpu_instance == part->gpu_instance && process->compute_instance == part->compute_instance);
}

static uint64_t used_by_processes(const struct gpu *gpu, const struct instance *part) {
  uint64_t used = 0;
  for (uint32_t i = 0; i < gpu->process_count && i < MAX_PROCESSES; i++) {
    const struct process *process = &gpu->processes[i];
    if (process->used_bytes != UINT64_MAX && is_of(process, part) && is_alive(process->pid))
      used += process->used_bytes;
  }
  return used;
}

struct memory {
  uint64_t total, reserved, used, free;
};
static struct memory memory_of(const struct gpu *gpu, const struct instance *part) {
  struct memory m = {.total = part ? part->memory_total_bytes : gpu->memory_total_bytes,
                     .reserved = part ? 0 : gpu->memory_reserved_bytes,
                     .used = (part ? part->memory_other_bytes : gpu->memory_other_bytes) + used_by_processes(gpu, part)};
  if (m.used + m.reserved > m.total) m.used = m.total - m.reserved;
  m.free = m.total - m.reserved - m.used;
  return m;
}
struct memory_v1 {
  uint64_t total, free, used;
};
struct memory_v2 {
  uint32_t version;
  uint64_t total, reserved, free, used;
};
_Static_assert(sizeof(struct memory_v2) == 40, "nvmlMemory_v2_t");

API nvmlDeviceGetMemoryInfo(nvmlDevice_t device, struct memory_v1 *out) {
  DEVICE();
  struct memory m = memory_of(gpu, part);
  *out = (struct memory_v1){m.total, m.free, m.used + m.reserved};
  return SUCCESS;
}
API nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, struct memory_v2 *out) {
  DEVICE();
  if (out->version != (sizeof *out | 2u << 24)) return VERSION_MISMATCH;
  struct memory m = memory_of(gpu, part);
  out->total = m.total, out->reserved = m.reserved, out->free = m.free, out->used = m.used;
  return SUCCESS;
}
API nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, struct memory_v1 *out) {
  DEVICE();
  (void)gpu, (void)part;
  *out = (struct memory_v1){1ull << 36, (1ull << 36) - (1ull << 20), 1ull << 20};
  return SUCCESS;
}

struct process_info {
  uint32_t pid;
  uint64_t used_bytes;
  uint32_t gpu_instance, compute_instance;
};
_Static_assert(sizeof(struct process_info) == 24, "nvmlProcessInfo_v2_t");

static nvmlReturn_t list_processes(struct gpu *gpu, struct instance *part, uint32_t kind, uint32_t *count,
                                   struct process_info *out) {
  struct process_info found[MAX_PROCESSES];
  uint32_t n = 0;
  for (uint32_t i = 0; i < gpu->process_count && i < MAX_PROCESSES; i++) {
    const struct process *p = &gpu->processes[i];
    if (p->kind == kind && is_of(p, part) && is_alive(p->pid))
      found[n++] = (struct process_info){p->pid, p->used_bytes, p->gpu_instance, p->compute_instance};
  }
  uint32_t room = *count;
  *count = n;
  if (n > room || (n && !out)) return INSUFFICIENT_SIZE;
  if (n) memcpy(out, found, n * sizeof *found);
  return SUCCESS;
}
#define PROCESSES(function, kind)                                                       \
  API function(nvmlDevice_t device, unsigned int *count, struct process_info *out) {    \
    DEVICE();                                                                           \
    return list_processes(gpu, part, kind, count, out);                                 \
  }
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, 0)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, 1)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, 2)

struct process_sample {
  uint32_t pid;
  uint64_t time;
  uint32_t sm, memory, encoder, decoder;
};
API nvmlDeviceGetProcessUtilization(nvmlDevice_t device, struct process_sample *out, unsigned int *count,
                                    unsigned long long since) {
  WHOLE();
  (void)since;
  struct process_info found[MAX_PROCESSES];
  uint32_t n = MAX_PROCESSES;
  list_processes(gpu, part, 0, &n, found);
  if (n == 0) return NOT_FOUND;
  uint32_t room = *count;
  *count = n;
  if (n > room || !out) return INSUFFICIENT_SIZE;
  for (uint32_t i = 0; i < n; i++)
    out[i] = (struct process_sample){found[i].pid, (uint64_t)time(NULL) * 1000000, gpu->utilisation_percent / n,
                                     gpu->memory_utilisation_percent / n, 0, 0};
  return SUCCESS;
}

/* ---- power and energy ---- */

static uint32_t drawn_mw(const struct gpu *gpu) {
  return gpu->power_mw < gpu->power_limit_mw ? gpu->power_mw : gpu->power_limit_mw;
}
static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
static uint64_t energy_mj(const struct gpu *gpu) {
  if (gpu->energy_fixed) return gpu->energy_base_mj;
  return gpu->energy_base_mj + (uint64_t)((double)(now_ns() - gpu->energy_base_ns) * 1e-9 * drawn_mw(gpu));
}

GETTER(nvmlDeviceGetPowerUsage, unsigned int, drawn_mw(gpu))
GETTER(nvmlDeviceGetPowerManagementLimit, unsigned int, gpu->power_limit_mw)
GETTER(nvmlDeviceGetEnforcedPowerLimit, unsigned int, gpu->power_limit_mw)
GETTER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned int, gpu->default_power_limit_mw)
GETTER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, energy_mj(gpu))

API nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *low, unsigned int *high) {
  WHOLE();
  *low = gpu->min_power_limit_mw, *high = gpu->max_power_limit_mw;
  return SUCCESS;
}
API nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned int limit) {
  WHOLE();
  if (limit < gpu->min_power_limit_mw || limit > gpu->max_power_limit_mw) return INVALID_ARGUMENT;
  if (!gpu->energy_fixed) gpu->energy_base_mj = energy_mj(gpu), gpu->energy_base_ns = now_ns();
  gpu->power_limit_mw = limit;
  return SUCCESS;
}

/* ---- clocks, temperature, utilisation ---- */

static uint32_t sm_clock(const struct gpu *gpu) {
  if (!gpu->locked_max_mhz) return gpu->sm_clock_mhz;
  if (gpu->sm_clock_mhz > gpu->locked_max_mhz) return gpu->locked_max_mhz;
  return gpu->sm_clock_mhz < gpu->locked_min_mhz ? gpu->locked_min_mhz : gpu->sm_clock_mhz;
}
enum { CLOCK_GRAPHICS, CLOCK_SM, CLOCK_MEMORY, CLOCK_VIDEO };

API nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int kind, unsigned int *out) {
  WHOLE();
  if (kind > CLOCK_VIDEO) return INVALID_ARGUMENT;
  *out = kind == CLOCK_MEMORY ? gpu->memory_clock_mhz : sm_clock(gpu);
  return SUCCESS;
}
API nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int kind, unsigned int *out) {
  WHOLE();
  if (kind > CLOCK_VIDEO) return INVALID_ARGUMENT;
  *out = kind == CLOCK_MEMORY ? gpu->max_memory_clock_mhz : gpu->max_sm_clock_mhz;
  return SUCCESS;
}
API nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, unsigned int low, unsigned int high) {
  WHOLE();
  if (low > high || high == 0 || high > gpu->max_sm_clock_mhz) return INVALID_ARGUMENT;
  gpu->locked_min_mhz = low, gpu->locked_max_mhz = high;
  return SUCCESS;
}
API nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device) {
  WHOLE();
  gpu->locked_min_mhz = gpu->locked_max_mhz = 0;
  return SUCCESS;
}
API nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor, unsigned int *out) {
  WHOLE();
  if (sensor != 0) return INVALID_ARGUMENT;
  *out = (unsigned int)gpu->temperature_c;
  return SUCCESS;
}
struct temperature {
  uint32_t version, sensor;
  int32_t celsius;
};
API nvmlDeviceGetTemperatureV(nvmlDevice_t device, struct temperature *out) {
  WHOLE();
  if (out->version != (sizeof *out | 1u << 24)) return VERSION_MISMATCH;
  if (out->sensor != 0) return INVALID_ARGUMENT;
  out->celsius = gpu->temperature_c;
  return SUCCESS;
}
struct utilisation {
  uint32_t gpu, memory;
};
API nvmlDeviceGetUtilizationRates(nvmlDevice_t device, struct utilisation *out) {
  WHOLE();
  if (gpu->mig_enabled) return NOT_SUPPORTED;
  *out = (struct utilisation){gpu->utilisation_percent, gpu->memory_utilisation_percent};
  return SUCCESS;
}
#define CODEC(function)                                                                    \
  API function(nvmlDevice_t device, unsigned int *percent, unsigned int *period_us) {      \
    WHOLE();                                                                               \
    (void)gpu;                                                                             \
    *percent = 0, *period_us = 167000;                                                     \
    return SUCCESS;                                                                        \
  }
CODEC(nvmlDeviceGetEncoderUtilization)
CODEC(nvmlDeviceGetDecoderUtilization)
GETTER(nvmlDeviceGetFanSpeed, unsigned int, gpu->fan_percent)
GETTER(nvmlDeviceGetPerformanceState, unsigned int, gpu->utilisation_percent ? 0 : 8)
GETTER(nvmlDeviceGetPersistenceMode, unsigned int, gpu->lost == 0)
GETTER(nvmlDeviceGetComputeMode, unsigned int, gpu->lost)
GETTER(nvmlDeviceGetDisplayActive, unsigned int, gpu->lost)
GETTER(nvmlDeviceGetDisplayMode, unsigned int, gpu->lost)
GETTER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, gpu->throttle_reasons)
GETTER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, gpu->throttle_reasons)

API nvmlDeviceGetDriverModel_v2(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
  WHOLE();
  (void)gpu, (void)current, (void)pending;
  return NOT_SUPPORTED; /* Windows only */
}
API nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned int counter, unsigned int *out) {
  WHOLE();
  (void)gpu, (void)counter;
  *out = 0;
  return SUCCESS;
}

/* ---- faults ---- */

API nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
  WHOLE();
  (void)gpu;
  *current = *pending = 1;
  return SUCCESS;
}
API nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int kind, unsigned int counter, unsigned long long *out) {
  WHOLE();
  if (kind > 1 || counter > 1) return INVALID_ARGUMENT;
  *out = kind ? gpu->ecc_uncorrected : gpu->ecc_corrected;
  return SUCCESS;
}
API nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected,
                              unsigned int *pending, unsigned int *failed) {
  WHOLE();
  *corrected = gpu->remapped_corrected, *uncorrected = gpu->remapped_uncorrected;
  *pending = gpu->remap_pending, *failed = gpu->remap_failed;
  return SUCCESS;
}

struct field_value {
  uint32_t field, scope;
  int64_t time_us, latency_us;
  uint32_t type, answer;
  union {
    uint32_t u32;
    uint64_t u64;
  } value;
};
_Static_assert(sizeof(struct field_value) == 40, "nvmlFieldValue_t");
enum { FIELD_ENERGY = 83, FIELD_POWER_INSTANT = 186, FIELD_RECOVERY_ACTION = 230, TYPE_U32 = 1, TYPE_U64 = 3 };

API nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, struct field_value *values) {
  WHOLE();
  for (int i = 0; i < count; i++) {
    struct field_value *value = &values[i];
    value->answer = SUCCESS, value->type = TYPE_U32, value->time_us = (int64_t)time(NULL) * 1000000;
    switch (value->field) {
      case FIELD_ENERGY: value->type = TYPE_U64, value->value.u64 = energy_mj(gpu); break;
      case FIELD_POWER_INSTANT: value->value.u32 = drawn_mw(gpu); break;
      case FIELD_RECOVERY_ACTION: value->value.u32 = gpu->recovery_action; break;
      default: value->answer = NOT_SUPPORTED;
    }
  }
  return SUCCESS;
}

/* ---- MIG ---- */

API nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
  WHOLE();
  *current = *pending = gpu->mig_enabled;
  return SUCCESS;
}
GETTER(nvmlDeviceGetMaxMigDeviceCount, unsigned int, gpu->mig_enabled ? 7 : 0)

API nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *out) {
  WHOLE();
  if (!gpu->mig_enabled || index >= gpu->instance_count || index >= MAX_INSTANCES) return NOT_FOUND;
  *out = &handles[device->gpu][index];
  return SUCCESS;
}
API nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *out) {
  DEVICE();
  (void)gpu;
  *out = part != NULL;
  return SUCCESS;
}
API nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device, nvmlDevice_t *out) {
  DEVICE();
  (void)gpu;
  if (!part) return INVALID_ARGUMENT;
  *out = &handles[device->gpu][MAX_INSTANCES];
  return SUCCESS;
}
API nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *out) {
  DEVICE();
  (void)gpu;
  if (!part) return NOT_SUPPORTED;
  *out = part->gpu_instance;
  return SUCCESS;
}
API nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *out) {
  DEVICE();
  (void)gpu;
  if (!part) return NOT_SUPPORTED;
  *out = part->compute_instance;
  return SUCCESS;
}

/* ---- events ---- */

struct event_set {
  uint64_t cursor, mask[MAX_GPUS];
};
struct event_data {
  nvmlDevice_t device;
  uint64_t type, data;
  uint32_t gpu_instance, compute_instance;
};
_Static_assert(sizeof(struct event_data) == 32, "nvmlEventData_t");

API nvmlEventSetCreate(struct event_set **out) {
  SYSTEM();
  *out = calloc(1, sizeof **out);
  if (!*out) return NOT_ENOUGH_MEMORY;
  (*out)->cursor = __atomic_load_n(&state->event_count, __ATOMIC_ACQUIRE);
  return SUCCESS;
}
API nvmlEventSetFree(struct event_set *set) {
  SYSTEM();
  free(set);
  return SUCCESS;
}
GETTER(nvmlDeviceGetSupportedEventTypes, unsigned long long, gpu->lost ? 0 : 0xFFFF)

API nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, struct event_set *set) {
  WHOLE();
  (void)gpu;
  set->mask[device->gpu] |= types;
  return SUCCESS;
}
API nvmlEventSetWait_v2(struct event_set *set, struct event_data *out, unsigned int timeout_ms) {
  /* Looking 100 times a second costs a waiting daemon little; a driver costs it nothing. */
  for (uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000u;; sleep_ms(10)) {
    SYSTEM();
    uint64_t count = __atomic_load_n(&state->event_count, __ATOMIC_ACQUIRE);
    if (count - set->cursor > MAX_EVENTS) set->cursor = count - MAX_EVENTS;
    while (set->cursor < count) {
      const struct event *event = &state->events[set->cursor++ % MAX_EVENTS];
      if (event->gpu >= MAX_GPUS || !(set->mask[event->gpu] & event->type)) continue;
      *out = (struct event_data){&handles[event->gpu][MAX_INSTANCES], event->type, event->data, NO_INSTANCE, NO_INSTANCE};
      return SUCCESS;
    }
    if (now_ns() >= end) return TIMED_OUT;
  }
}
