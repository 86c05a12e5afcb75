/* Continues tokens with a .slm artifact whose weights are read when they are needed:
 *
 *     streamed model.slm COUNT TOKEN...      the new tokens' numbers, one a line, the likeliest each time
 *
 * Build: docs/c-api.md, with the feature `streaming`; the artifact is one of `slmc compile --resident`. On a device `read_at` asks
 * the card or the flash, and the memory is static arrays of the sizes that `slmc compile` prints; here a file is read. */
#include "slm.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char *what, slm_status status) {
    fprintf(stderr, "streamed: %s: %s\n", what, slm_message(status));
    return 2;
}

/* Memory that starts on SLM_MEMORY_ALIGNMENT bytes. */
static void *memory_of(size_t bytes) {
    return aligned_alloc(SLM_MEMORY_ALIGNMENT,
                         (bytes + SLM_MEMORY_ALIGNMENT) / SLM_MEMORY_ALIGNMENT * SLM_MEMORY_ALIGNMENT);
}

static int64_t read_at(void *user, uint64_t offset, void *into, size_t length) {
    FILE *file = user;
    if (fseek(file, (long)offset, SEEK_SET) != 0) {
        return SLM_READ_FAILED;
    }
    return (int64_t)fread(into, 1, length, file);
}

static size_t likeliest(const float *logits, size_t count) {
    size_t best = 0;
    for (size_t index = 1; index < count; index++) {
        if (logits[index] > logits[best]) {
            best = index;
        }
    }
    return best;
}

static int run(slm_session *session, size_t count, uint32_t *tokens, size_t length) {
    slm_status status = slm_step(session, tokens, length);
    slm_traffic traffic;
    for (size_t made = 0; status == SLM_OK && made < count; made++) {
        const float *logits;
        size_t width;
        uint32_t next;
        if ((status = slm_logits(session, &logits, &width)) != SLM_OK) {
            break;
        }
        next = (uint32_t)likeliest(logits, width);
        printf("%" PRIu32 "\n", next);
        if (made + 1 < count) {
            status = slm_step(session, &next, 1);
        }
    }
    if (status != SLM_OK) {
        return fail("step", status);
    }
    if ((status = slm_streamed_traffic(session, &traffic)) != SLM_OK || (status = slm_streamed_settle(session)) != SLM_OK) {
        return fail("traffic", status);
    }
    fprintf(stderr, "streamed: %" PRIu64 " bytes in %" PRIu64 " reads\n", traffic.bytes, traffic.reads);
    return 0;
}

int main(int argc, char **argv) {
    static slm_streamed streamed;
    static slm_model model;
    slm_storage storage = {0};
    slm_streamed_sizes needed;
    slm_session *session;
    slm_status status;
    FILE *file = argc > 3 ? fopen(argv[1], "rb") : NULL;
    void *page = memory_of(4096), *memory = NULL, *own = NULL;
    uint32_t *tokens = calloc((size_t)argc, sizeof *tokens);
    size_t bytes;
    int result = 2;

    if (file == NULL || page == NULL || tokens == NULL) {
        fputs("usage: streamed model.slm COUNT TOKEN...\n", stderr);
        goto done;
    }
    for (int index = 3; index < argc; index++) {
        tokens[index - 3] = (uint32_t)strtoul(argv[index], NULL, 10);
    }
    storage.read = read_at;
    storage.user = file;
    if ((status = slm_streamed_needs(&storage, page, &needed)) != SLM_OK) {
        result = fail(argv[1], status);
        goto done;
    }
    memory = memory_of((size_t)needed.memory_bytes);
    storage.buffer_bytes = (size_t)needed.buffer_bytes;
    storage.buffers[0] = memory_of(storage.buffer_bytes);
    storage.buffers[1] = memory_of(storage.buffer_bytes);
    if (memory == NULL || storage.buffers[0] == NULL || storage.buffers[1] == NULL) {
        fputs("streamed: out of memory\n", stderr);
        goto done;
    }
    status = slm_streamed_open(&streamed, &model, &storage, memory, (size_t)needed.memory_bytes, NULL, 1);
    if (status != SLM_OK) {
        char text[256];
        slm_streamed_error(&streamed, text, sizeof text);
        fprintf(stderr, "streamed: %s: %s\n", argv[1], text);
        goto done;
    }
    if ((status = slm_streamed_verify(&streamed)) != SLM_OK) {
        result = fail("verify", status);
        goto done;
    }
    bytes = slm_session_bytes(&model);
    own = memory_of(bytes);
    if (own == NULL) {
        fputs("streamed: out of memory\n", stderr);
        goto done;
    }
    if ((status = slm_streamed_self_test(&streamed, own, bytes)) != SLM_OK ||
        (status = slm_streamed_init(&session, &streamed, own, bytes, 1)) != SLM_OK) {
        result = fail("session", status);
        goto done;
    }
    result = run(session, strtoul(argv[2], NULL, 10), tokens, (size_t)argc - 3);
done:
    free(own);
    free(storage.buffers[0]);
    free(storage.buffers[1]);
    free(memory);
    free(page);
    free(tokens);
    if (file != NULL) {
        fclose(file);
    }
    return result;
}
