/* Continues a text with a .slm artifact:
 *
 *     generate model.slm "Once upon a time" 64 [temperature [seed]]
 *     generate --ids model.slm "Once upon a time" 64 [temperature [seed]]   the new tokens' numbers, one a line
 *     generate --self-test model.slm                                        compare with the build machine, bit for bit
 *
 * Without a temperature tokens are chosen as the model's makers recommend, which the artifact says.
 * Build: docs/c-api.md. On a device the artifact lies in flash and the memory is a static array; here a file is read. */
#include "slm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, slm_status status) {
    fprintf(stderr, "generate: %s: %s\n", what, slm_message(status));
    return 2;
}

/* Memory that starts on SLM_MEMORY_ALIGNMENT bytes. */
static void *memory_of(size_t bytes) {
    size_t padded = bytes / SLM_MEMORY_ALIGNMENT * SLM_MEMORY_ALIGNMENT;
    return aligned_alloc(SLM_MEMORY_ALIGNMENT, padded < bytes || padded == 0 ? padded + SLM_MEMORY_ALIGNMENT : padded);
}

static void *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    void *bytes = NULL;
    long end;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (end = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) != 0) {
        perror(path);
    } else if ((bytes = memory_of((size_t)end)) == NULL || fread(bytes, 1, (size_t)end, file) != (size_t)end) {
        fprintf(stderr, "generate: cannot read %s\n", path);
        free(bytes);
        bytes = NULL;
    } else {
        *length = (size_t)end;
    }
    if (file != NULL) {
        fclose(file);
    }
    return bytes;
}

static int self_test(const slm_model *model, void *memory, size_t length) {
    slm_status status = slm_verify(model);
    if (status == SLM_OK) {
        status = slm_self_test(model, memory, length);
    }
    if (status != SLM_OK) {
        return fail("self-test", status);
    }
    puts("self-test: the digests hold, and the logits are the build machine's");
    return 0;
}

/* Adds tokens to the set of those that the sequence has. */
static void mark(uint32_t *seen, const uint32_t *tokens, size_t count) {
    for (size_t index = 0; index < count; index++) {
        seen[tokens[index] / 32] |= 1u << tokens[index] % 32;
    }
}

/* Reads the prompt, then chooses and reads token after token. */
static int generate(const slm_model *model, slm_session *session, const char *prompt, size_t most,
                    const slm_choice *choice, uint64_t seed, int ids) {
    slm_facts facts = {0};
    slm_status status = slm_describe(model, &facts);
    size_t length = strlen(prompt), count = 0, opening = 0, capacity = length + 8;
    size_t bytes = slm_encode_bytes(model, length);
    uint32_t *tokens = malloc((SLM_MAX_OPENING_TOKENS + capacity) * sizeof *tokens);
    uint32_t *seen = calloc(facts.vocabulary / 32 + 1, sizeof *seen);
    void *scratch = memory_of(bytes);
    slm_decoder decoder;
    int result = 2;

    if (tokens == NULL || seen == NULL || scratch == NULL) {
        fputs("generate: out of memory\n", stderr);
        goto done;
    }
    /* A text opens with the tokens that its tokenizer puts there, where there are any. */
    if (status == SLM_OK) {
        status = slm_opening_tokens(model, tokens, SLM_MAX_OPENING_TOKENS, &opening);
    }
    if (status == SLM_OK) {
        status = slm_encode(model, prompt, length, 0, scratch, bytes, tokens + opening, capacity, &count);
    }
    if (status == SLM_OK) {
        status = slm_decode_begin(&decoder, model, length == 0);
    }
    const uint32_t *read = tokens;
    count += opening;
    if (status != SLM_OK) {
        result = fail("prompt", status);
        goto done;
    }
    if (!ids) {
        fputs(prompt, stdout);
    }
    size_t left = facts.context;
    for (size_t index = 0; index < most; index++) {
        const float *logits;
        const char *text;
        size_t width;
        uint32_t token;
        /* The last token of a full context has no successor: stop as slmc does. */
        if (count > left) {
            if (index == 0) {
                result = fail("prompt", SLM_CONTEXT);
                goto done;
            }
            break;
        }
        left -= count;
        mark(seen, read, count);
        if ((status = slm_step(session, read, count)) != SLM_OK ||
            (status = slm_logits(session, &logits, &width)) != SLM_OK ||
            (status = slm_choose(logits, width, choice, seen, seed, index, &token)) != SLM_OK) {
            result = fail("step", status);
            goto done;
        }
        if (slm_is_end(model, token)) {
            break;
        }
        if (ids) {
            printf("%lu\n", (unsigned long)token);
        } else if ((status = slm_decode(&decoder, token, &text, &width)) != SLM_OK) {
            result = fail("token", status);
            goto done;
        } else {
            fwrite(text, 1, width, stdout);
            fflush(stdout);
        }
        tokens[0] = token;
        count = 1;
    }
    if (!ids) {
        putchar('\n');
    }
    result = 0;
done:
    free(scratch);
    free(seen);
    free(tokens);
    return result;
}

int main(int argc, char **argv) {
    int testing = argc == 3 && strcmp(argv[1], "--self-test") == 0;
    int ids = argc > 1 && strcmp(argv[1], "--ids") == 0;
    char **own = argv + ids;
    int count = argc - ids;
    if (!testing && (count < 4 || count > 6)) {
        fputs("usage: generate [--ids] MODEL.slm PROMPT TOKENS [TEMPERATURE [SEED]]\n"
              "       generate --self-test MODEL.slm\n", stderr);
        return 2;
    }
    if (slm_abi_version() != SLM_ABI_VERSION) {
        fputs("generate: slm.h and the library are of different versions\n", stderr);
        return 2;
    }
    const char *path = testing ? argv[2] : own[1];
    size_t length = 0;
    void *file = read_file(path, &length);
    if (file == NULL) {
        return 2;
    }
    int result = 2;
    static slm_model model;
    slm_session *session;
    void *memory = NULL;
    slm_status status = slm_open(&model, file, length);
    if (status != SLM_OK) {
        char why[200];
        slm_model_error(&model, why, sizeof why);
        fprintf(stderr, "generate: %s: %s\n", path, why);
    } else if ((memory = memory_of(slm_session_bytes(&model))) == NULL) {
        fputs("generate: out of memory\n", stderr);
    } else if (testing) {
        result = self_test(&model, memory, slm_session_bytes(&model));
    } else if ((status = slm_session_init(&session, &model, memory, slm_session_bytes(&model))) != SLM_OK) {
        result = fail(path, status);
    } else {
        slm_choice choice;
        slm_default_choice(&model, &choice);
        if (count > 4) {
            choice.temperature = strtof(own[4], NULL);
        }
        uint64_t seed = count > 5 ? strtoull(own[5], NULL, 10) : 0;
        result = generate(&model, session, own[2], strtoul(own[3], NULL, 10), &choice, seed, ids);
    }
    free(memory);
    free(file);
    return result;
}
