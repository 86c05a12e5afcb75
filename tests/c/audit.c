/* Writes an audit log as a device does: two answers with a restart between them, sealed by a secret key, for tests/audit.rs,
 * which checks and replays it.
 *
 *     audit model.slm LOG ROOT "prompt" TOKENS SEED
 *
 * ROOT has the 32 secret bytes of the log. Prints the head of the log. */
#include "slm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(holds)                                                                                                 \
    do {                                                                                                              \
        if (!(holds)) {                                                                                               \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #holds);                                               \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

/* A log in a file, and its last record. */
struct medium {
    FILE *file;
    uint8_t last[SLM_AUDIT_RECORD_BYTES];
    int full;
};

static int32_t append(void *user, const uint8_t *record) {
    struct medium *medium = user;
    if (medium->full) {
        return 1;
    }
    memcpy(medium->last, record, sizeof medium->last);
    return fwrite(record, 1, sizeof medium->last, medium->file) == sizeof medium->last ? 0 : 1;
}

static void *memory_of(size_t bytes) {
    size_t units = bytes / SLM_MEMORY_ALIGNMENT + 1;
    void *memory = aligned_alloc(SLM_MEMORY_ALIGNMENT, units * SLM_MEMORY_ALIGNMENT);
    EXPECT(memory != NULL);
    return memory;
}

static void *file_of(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    EXPECT(file != NULL && fseek(file, 0, SEEK_END) == 0);
    long end = ftell(file);
    EXPECT(end >= 0 && fseek(file, 0, SEEK_SET) == 0);
    void *bytes = memory_of((size_t)end);
    EXPECT(fread(bytes, 1, (size_t)end, file) == (size_t)end && fclose(file) == 0);
    *length = (size_t)end;
    return bytes;
}

/* Answers a prompt and records it. */
static void answer(const slm_model *model, slm_session *session, slm_audit *audit, struct medium *medium,
                   const char *prompt, size_t most, uint64_t seed, uint64_t time) {
    uint32_t tokens[SLM_MAX_OPENING_TOKENS + 256];
    size_t length = strlen(prompt), bytes = slm_encode_bytes(model, length), opening = 0, count = 0;
    void *scratch = memory_of(bytes);
    slm_choice choice;
    slm_exchange exchange;
    EXPECT(slm_opening_tokens(model, tokens, SLM_MAX_OPENING_TOKENS, &opening) == SLM_OK);
    EXPECT(slm_encode(model, prompt, length, 0, scratch, bytes, tokens + opening, 256, &count) == SLM_OK);
    free(scratch);
    count += opening;
    EXPECT(slm_default_choice(model, &choice) == SLM_OK);
    choice.temperature = 0.75f;
    EXPECT(slm_exchange_begin(&exchange, audit, &choice, seed) == SLM_OK);
    EXPECT(slm_exchange_input(&exchange, tokens, count) == SLM_OK);
    EXPECT(slm_reset(session) == SLM_OK && slm_step(session, tokens, count) == SLM_OK);
    slm_outcome outcome = {0, SLM_END_LENGTH, SLM_FOLLOWS_NOTHING};
    for (size_t index = 0; index < most; index++) {
        const float *logits;
        size_t width;
        uint32_t token;
        EXPECT(slm_logits(session, &logits, &width) == SLM_OK);
        EXPECT(slm_choose(logits, width, &choice, NULL, seed, index, &token) == SLM_OK);
        if (slm_is_end(model, token)) {
            outcome.end = SLM_END_MODEL;
            break;
        }
        EXPECT(slm_exchange_output(&exchange, &token, 1) == SLM_OK);
        if (index + 1 < most) {
            EXPECT(slm_step(session, &token, 1) == SLM_OK);
        }
    }
    EXPECT(slm_audit_inference(audit, &exchange, model, &outcome, time, append, medium) == SLM_OK);
    /* The exchange is over. */
    EXPECT(slm_audit_inference(audit, &exchange, model, &outcome, time, append, medium) == SLM_NOT_OPEN);
}

int main(int argc, char **argv) {
    EXPECT(argc == 7);
    size_t length, root_length;
    void *bytes = file_of(argv[1], &length);
    uint8_t *root = file_of(argv[3], &root_length);
    EXPECT(root_length == 32);
    struct medium medium = {fopen(argv[2], "wb"), {0}, 0};
    EXPECT(medium.file != NULL);
    size_t most = strtoull(argv[5], NULL, 10);
    uint64_t seed = strtoull(argv[6], NULL, 10);

    static slm_model model;
    EXPECT(slm_open(&model, bytes, length) == SLM_OK);
    size_t needed = slm_session_bytes(&model);
    void *memory = memory_of(needed);
    slm_session *session;
    EXPECT(slm_session_init(&session, &model, memory, needed) == SLM_OK);

    static slm_audit audit;
    uint8_t saved[SLM_AUDIT_KEY_BYTES], head[32], note[32] = {1, 2, 3};
    uint64_t records;
    EXPECT(slm_audit_start(&audit, NULL, root, NULL) == SLM_OK);
    for (size_t index = 0; index < 32; index++) {
        EXPECT(root[index] == 0);
    }
    EXPECT(slm_audit_event(&audit, SLM_AUDIT_OPENED, SLM_OK, &model, NULL, 100, append, &medium) == SLM_OK);
    answer(&model, session, &audit, &medium, argv[4], most, seed, 101);
    EXPECT(slm_audit_seal(&audit, 102, append, &medium) == SLM_OK);
    EXPECT(slm_audit_save_key(&audit, saved) == SLM_OK);
    /* What the medium does not take is not counted. */
    medium.full = 1;
    EXPECT(slm_audit_event(&audit, SLM_AUDIT_NOTE, 7, NULL, note, 103, append, &medium) == SLM_APPEND);
    EXPECT(slm_audit_head(&audit, head, &records) == SLM_OK && records == 3);
    medium.full = 0;

    /* A restart: the last record and the key are all that is kept. */
    memset(&audit, 0, sizeof audit);
    EXPECT(slm_audit_seal(&audit, 104, append, &medium) == SLM_NOT_OPEN);
    EXPECT(slm_audit_start(&audit, medium.last, NULL, saved) == SLM_OK);
    EXPECT(slm_audit_save_key(&audit, saved) == SLM_OK);
    EXPECT(slm_audit_event(&audit, SLM_AUDIT_OPENED, SLM_OK, &model, NULL, 104, append, &medium) == SLM_OK);
    answer(&model, session, &audit, &medium, argv[4], most / 2, seed + 1, 105);
    EXPECT(slm_audit_seal(&audit, 106, append, &medium) == SLM_OK);
    EXPECT(slm_audit_head(&audit, head, &records) == SLM_OK && records == 6);
    EXPECT(fclose(medium.file) == 0);
    for (size_t index = 0; index < sizeof head; index++) {
        printf("%02x", head[index]);
    }
    printf("\n");
    free(memory);
    free(root);
    free(bytes);
    return 0;
}
