/* What is done to the files of one database, as a trace in one order for all processes, and faults at will.
 *
 * Preloaded into Python; does nothing before recorder_start. Each record is written under a lock that is
 * held over the operation itself. A sync is two records, because it covers only what came before it began.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FILES 4096

struct record {
    uint32_t kind, name; /* a letter; an index of `names`, 9: none */
    uint64_t thread, inode;
    int64_t offset, length;
};
static const char *suffixes[] = {"", "-wal", "-journal"};
static char names[4][4096]; /* the database, its WAL, its journal, their folder */
static signed char kept[FILES]; /* 1 + index of names, by file descriptor */
static int trace = -1;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* The fault: at the `fault_at`th operation of `fault_kinds`, and with sticky at all later ones. */
static const char *fault_kinds = "";
static char fault_letters[16];
static long fault_at, counted;
static int fault_action, fault_sticky;
enum { SHORT = -1, KILL = -9 };

static void lock(void) { pthread_mutex_lock(&mutex); if (trace >= 0) flock(trace, LOCK_EX); }
static void unlock(void) { if (trace >= 0) flock(trace, LOCK_UN); pthread_mutex_unlock(&mutex); }

static void put(int kind, int name, uint64_t inode, int64_t offset, const void *data, size_t length) {
    struct record head = {kind, name, syscall(SYS_gettid), inode, offset, length};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)data, data ? length : 0}};
    if (trace >= 0 && writev(trace, parts, 2) < 0) _exit(97);
}

static uint64_t inode_of(int file) { struct stat found; return fstat(file, &found) ? 0 : found.st_ino; }
static int is_kept(int file) { return file >= 0 && file < FILES && kept[file]; }
static int name_of(const char *path) {
    for (int i = 0; i < 4; i++) if (names[0][0] && !strcmp(path, names[i])) return i;
    return -1;
}

/* 0, or what the operation must do instead. */
static int fault(int kind) {
    if (!strchr(fault_kinds, kind)) return 0;
    counted++;
    if (!fault_at || counted < fault_at || (counted > fault_at && !fault_sticky)) return 0;
    if (fault_action == KILL) { kill(getpid(), SIGKILL); pause(); }
    return fault_action;
}

void recorder_start(const char *database, const char *trace_path) {
    if (trace >= 0) REAL(close)(trace);
    for (int i = 0; i < 3; i++) snprintf(names[i], sizeof names[i], "%s%s", database, suffixes[i]);
    snprintf(names[3], sizeof names[3], "%s", database);
    *strrchr(names[3], '/') = 0;
    trace = trace_path ? REAL(open64)(trace_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
}
void recorder_stop(void) { if (trace >= 0) REAL(close)(trace); trace = -1; names[0][0] = 0; }
void recorder_mark(const char *text) { lock(); put('M', 9, 0, 0, text, strlen(text)); unlock(); }
void recorder_fault(const char *kinds, long at, int action, int sticky) {
    snprintf(fault_letters, sizeof fault_letters, "%s", kinds);
    fault_kinds = fault_letters; fault_at = at; fault_action = action; fault_sticky = sticky; counted = 0;
}
long recorder_counted(void) { return counted; }

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    int name = name_of(path);
    if (name < 0) return real(path, flags, mode);
    lock();
    int is_new = (flags & O_CREAT) && access(path, F_OK);
    int error = is_new ? fault('O') : 0;
    int file = error > 0 ? -1 : real(path, flags, mode);
    if (error > 0) errno = error;
    if (file >= 0 && file < FILES) {
        kept[file] = 1 + name;
        if (is_new) put('O', name, inode_of(file), 0, 0, 0);
        if (flags & O_TRUNC) put('T', name, inode_of(file), 0, 0, 0);
    }
    unlock();
    return file;
}
#define OPEN(call)                                                                                     \
    int call(const char *path, int flags, ...) {                                                       \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more);         \
        return opened(REAL(call), path, flags, mode);                                                  \
    }
OPEN(open)
OPEN(open64)

int close(int file) { if (is_kept(file)) kept[file] = 0; return REAL(close)(file); }

static ssize_t written(int file, const void *data, size_t length, off64_t offset) {
    lock();
    int error = fault('W');
    if (error == SHORT && length > 1) length /= 2;
    ssize_t done = error > 0 ? -1 : REAL(pwrite64)(file, data, length, offset);
    if (error > 0) errno = error;
    if (done > 0) put('W', kept[file] - 1, inode_of(file), offset, data, done);
    unlock();
    return done;
}
ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) {
    return is_kept(file) ? written(file, data, length, offset) : REAL(pwrite64)(file, data, length, offset);
}
ssize_t pwrite(int file, const void *data, size_t length, off_t offset) {
    return is_kept(file) ? written(file, data, length, offset) : REAL(pwrite)(file, data, length, offset);
}
ssize_t write(int file, const void *data, size_t length) {
    if (!is_kept(file)) return REAL(write)(file, data, length);
    off64_t offset = lseek64(file, 0, SEEK_CUR);
    ssize_t done = written(file, data, length, offset);
    if (done > 0) lseek64(file, offset + done, SEEK_SET);
    return done;
}

static int truncated(int (*real)(int, off64_t), int file, off64_t size) {
    if (!is_kept(file)) return real(file, size);
    lock();
    int error = fault('T');
    int answer = error > 0 ? -1 : real(file, size);
    if (error > 0) errno = error;
    if (!answer) put('T', kept[file] - 1, inode_of(file), size, 0, 0);
    unlock();
    return answer;
}
int ftruncate64(int file, off64_t size) { return truncated(REAL(ftruncate64), file, size); }
int ftruncate(int file, off_t size) { return truncated(REAL(ftruncate64), file, size); }

static int synced(int (*real)(int), int file) {
    if (!is_kept(file)) return real(file);
    lock();
    int error = fault('S');
    put('S', kept[file] - 1, inode_of(file), 0, 0, 0);
    unlock();
    int answer = error > 0 ? -1 : real(file);
    lock();
    put(answer ? 'X' : 'E', kept[file] - 1, inode_of(file), 0, 0, 0);
    unlock();
    if (error > 0) errno = error;
    return answer;
}
int fsync(int file) { return synced(REAL(fsync), file); }
int fdatasync(int file) { return synced(REAL(fdatasync), file); }

int unlink(const char *path) {
    int name = name_of(path);
    if (name < 0) return REAL(unlink)(path);
    lock();
    int error = fault('U');
    int answer = error > 0 ? -1 : REAL(unlink)(path);
    if (error > 0) errno = error;
    if (!answer) put('U', name, 0, 0, 0, 0);
    unlock();
    return answer;
}
int rename(const char *from, const char *to) {
    if (name_of(from) >= 0 || name_of(to) >= 0) _exit(98); /* nothing renames a database: the model has none */
    return REAL(rename)(from, to);
}
