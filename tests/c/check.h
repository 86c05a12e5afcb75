/* Shared by the programs of this folder, each of which includes it once: expectations that are counted, memory on the runtime's
 * alignment, files read whole. Exit code 1: an expectation does not hold; 3: the program cannot ask. */
#ifndef CHECK_H
#define CHECK_H

#include "slm.h"

#include <stdio.h>
#include <stdlib.h>

static int looked_at = 0;

#define EXPECT(condition)                                                              \
    do {                                                                               \
        looked_at++;                                                                   \
        if (!(condition)) {                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

struct file {
    unsigned char *bytes;
    size_t length;
};

static inline unsigned char *memory_of(size_t bytes) {
    unsigned char *memory = aligned_alloc(SLM_MEMORY_ALIGNMENT, (bytes + 63) / 64 * 64);
    if (memory == NULL) {
        exit(3);
    }
    return memory;
}

static inline struct file read_file(const char *path) {
    struct file file;
    FILE *stream = fopen(path, "rb");
    long length;
    if (stream == NULL || fseek(stream, 0, SEEK_END) != 0 || (length = ftell(stream)) < 0) {
        exit(3);
    }
    rewind(stream);
    file.length = (size_t)length;
    file.bytes = memory_of(file.length);
    if (fread(file.bytes, 1, file.length, stream) != file.length) {
        exit(3);
    }
    fclose(stream);
    return file;
}

#endif
