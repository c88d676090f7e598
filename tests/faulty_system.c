// Preloaded into the command: the n-th call of a kind on files below a folder fails, counted over all processes together.
//
// FAULT_STATE  a file of two 64-bit numbers: calls so far, faults so far
// FAULT_CALL   write | sync | rename | link | lock | map | open | truncate | folder
// FAULT_BELOW  prefix of the paths that count
// FAULT_NTH    which call fails, from 1; 0: none, they are only counted
// FAULT_ERRNO  what it fails with; 0: a write takes half of what it is given
// FAULT_ONWARD set: all calls from the n-th on fail
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name, type, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static _Atomic int64_t *state;
static const char *kind, *below;
static int64_t nth;
static int number, onward;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULT_STATE");
    int (*open_file)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    void *(*map)(void *, size_t, int, int, int, off_t) = (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
    int fd = path ? open_file(path, O_RDWR) : -1;
    if (fd < 0) return;
    void *found = map(NULL, 2 * sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    kind = getenv("FAULT_CALL");
    below = getenv("FAULT_BELOW");
    nth = atoll(getenv("FAULT_NTH"));
    number = atoi(getenv("FAULT_ERRNO"));
    onward = getenv("FAULT_ONWARD") != NULL;
    if (found != MAP_FAILED) state = found;
}

// Whether this call is to fail; errno is set then.
static int fails(const char *call, const char *path) {
    char whole[PATH_MAX];
    if (!state || !path || strcmp(call, kind)) return 0;
    if (path[0] != '/' && getcwd(whole, sizeof whole)) {
        size_t length = strlen(whole);
        snprintf(whole + length, sizeof whole - length, "/%s", path);
        path = whole;
    }
    if (strncmp(path, below, strlen(below))) return 0;
    int64_t call_number = atomic_fetch_add(&state[0], 1) + 1;
    if (!nth || (onward ? call_number < nth : call_number != nth)) return 0;
    atomic_fetch_add(&state[1], 1);
    errno = number;
    return 1;
}

static int fails_on(const char *call, int fd) {
    char link[64], path[PATH_MAX];
    if (!state || fd < 0 || strcmp(call, kind)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || path[0] != '/') return 0;  // a pipe, say
    path[length] = 0;
    return fails(call, path);
}

ssize_t write(int fd, const void *data, size_t count) {
    REAL("write", ssize_t, int, const void *, size_t);
    if (!fails_on("write", fd)) return real(fd, data, count);
    return number ? -1 : real(fd, data, count > 1 ? count / 2 : count);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t at) {
    REAL("pwrite", ssize_t, int, const void *, size_t, off_t);
    if (!fails_on("write", fd)) return real(fd, data, count, at);
    return number ? -1 : real(fd, data, count > 1 ? count / 2 : count, at);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off_t at) { return pwrite(fd, data, count, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL("writev", ssize_t, int, const struct iovec *, int);
    return fails_on("write", fd) && number ? -1 : real(fd, parts, count);
}

ssize_t sendfile(int out, int in, off_t *at, size_t count) {
    REAL("sendfile", ssize_t, int, int, off_t *, size_t);
    return fails_on("write", out) && number ? -1 : real(out, in, at, count);
}

ssize_t sendfile64(int out, int in, off_t *at, size_t count) { return sendfile(out, in, at, count); }

ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t count, unsigned flags) {
    REAL("copy_file_range", ssize_t, int, off_t *, int, off_t *, size_t, unsigned);
    return fails_on("write", out) && number ? -1 : real(in, from, out, to, count, flags);
}

int fsync(int fd) {
    REAL("fsync", int, int);
    return fails_on("sync", fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL("fdatasync", int, int);
    return fails_on("sync", fd) ? -1 : real(fd);
}

int rename(const char *from, const char *to) {
    REAL("rename", int, const char *, const char *);
    return fails("rename", to) ? -1 : real(from, to);
}

int renameat(int one, const char *from, int other, const char *to) {
    REAL("renameat", int, int, const char *, int, const char *);
    return fails("rename", to) ? -1 : real(one, from, other, to);
}

int link(const char *from, const char *to) {
    REAL("link", int, const char *, const char *);
    return fails("link", to) ? -1 : real(from, to);
}

int linkat(int one, const char *from, int other, const char *to, int flags) {
    REAL("linkat", int, int, const char *, int, const char *, int);
    return fails("link", to) ? -1 : real(one, from, other, to, flags);
}

int flock(int fd, int operation) {
    REAL("flock", int, int, int);
    return fails_on("lock", fd) ? -1 : real(fd, operation);
}

int fcntl(int fd, int command, ...) {
    REAL("fcntl", int, int, int, void *);
    va_list rest;
    va_start(rest, command);
    void *given = va_arg(rest, void *);
    va_end(rest);
    if ((command == F_SETLK || command == F_SETLKW) && fails_on("lock", fd)) return -1;
    return real(fd, command, given);
}

int fcntl64(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *given = va_arg(rest, void *);
    va_end(rest);
    return fcntl(fd, command, given);
}

void *mmap(void *where, size_t length, int protection, int flags, int fd, off_t at) {
    REAL("mmap", void *, void *, size_t, int, int, int, off_t);
    return fails_on("map", fd) ? MAP_FAILED : real(where, length, protection, flags, fd, at);
}

void *mmap64(void *where, size_t length, int protection, int flags, int fd, off_t at) {
    return mmap(where, length, protection, flags, fd, at);
}

int ftruncate(int fd, off_t length) {
    REAL("ftruncate", int, int, off_t);
    return fails_on("truncate", fd) ? -1 : real(fd, length);
}

int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

int mkdir(const char *path, mode_t mode) {
    REAL("mkdir", int, const char *, mode_t);
    return fails("folder", path) ? -1 : real(path, mode);
}

#define OPENED(flags, mode) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    } \
    if (((flags) & O_ACCMODE) != O_RDONLY || (flags) & O_CREAT) { \
        if (fails("open", path)) return -1; \
    }

int open(const char *path, int flags, ...) {
    REAL("open", int, const char *, int, ...);
    OPENED(flags, mode)
    return real(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    REAL("open64", int, const char *, int, ...);
    OPENED(flags, mode)
    return real(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    REAL("openat", int, int, const char *, int, ...);
    OPENED(flags, mode)
    return real(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    REAL("openat64", int, int, const char *, int, ...);
    OPENED(flags, mode)
    return real(folder, path, flags, mode);
}
