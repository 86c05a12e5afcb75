/* Writes an output that follows a grammar, with a .slm artifact:
 *
 *     constrained model.slm "Command: " [temperature [seed [grammar.section]]]
 *
 * The grammar is the artifact's own, or one that slmc wrote to a file for the same model. Tokens without an alternative are
 * read together with the last one that was chosen, and only the logits of allowed tokens are computed. Exit code 1: the
 * context ended before the text did. Build: docs/c-api.md. */
#include "slm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Most tokens that are read together after a choice. */
#define ROOM 256

static int fail(const char *what, slm_status status) {
    fprintf(stderr, "constrained: %s: %s\n", what, slm_message(status));
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
        fprintf(stderr, "constrained: cannot read %s\n", path);
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

static slm_status write_text(slm_decoder *decoder, const uint32_t *tokens, size_t count) {
    slm_status status = SLM_OK;
    for (size_t index = 0; index < count && status == SLM_OK; index++) {
        const char *text;
        size_t length;
        status = slm_decode(decoder, tokens[index], &text, &length);
        if (status == SLM_OK) {
            fwrite(text, 1, length, stdout);
        }
    }
    return status;
}

/* Follows the grammar to the end of a text; `tokens` has the prompt and ROOM places after it. */
static slm_status follow(const slm_model *model, slm_session *session, const slm_grammar *grammar, uint32_t *tokens,
                         size_t count, const slm_choice *choice, uint64_t seed, uint32_t *seen, uint32_t *allowed) {
    size_t words = slm_grammar_words(grammar);
    uint64_t draws = 0;
    slm_grammar_state state;
    slm_decoder decoder;
    slm_status status = slm_grammar_start(grammar, &state);
    if (status == SLM_OK) {
        status = slm_decode_begin(&decoder, model, 0);
    }
    while (status == SLM_OK) {
        const float *logits;
        size_t forced, number, width;
        uint32_t token;
        /* Room is left where the run ended by itself; a longer one goes on after the next step. */
        if ((status = slm_grammar_forced(grammar, &state, tokens + count, ROOM, &forced)) != SLM_OK ||
            (status = write_text(&decoder, tokens + count, forced)) != SLM_OK) {
            break;
        }
        count += forced;
        for (size_t index = 0; index < count; index++) {
            seen[tokens[index] / 32] |= 1u << tokens[index] % 32;
        }
        if (forced == ROOM) {
            status = slm_step(session, tokens, count);
            count = 0;
            continue;
        }
        if (slm_grammar_complete(grammar, &state)) {
            break;
        }
        if ((status = slm_grammar_allowed(grammar, &state, allowed, words, &number)) != SLM_OK) {
            break;
        }
        /* After a full run nothing may be left to read: its last step has the logits. */
        if (count > 0) {
            status = slm_step_allowed(session, tokens, count, allowed, words);
        }
        if (status != SLM_OK || (status = slm_logits(session, &logits, &width)) != SLM_OK ||
            (status = slm_choose_among(logits, width, choice, seen, allowed, seed, draws, &token)) != SLM_OK ||
            (status = slm_grammar_advance(grammar, &state, token)) != SLM_OK || slm_is_end(model, token)) {
            break;
        }
        draws++;
        status = write_text(&decoder, &token, 1);
        tokens[0] = token;
        count = 1;
    }
    return status;
}

static int run(const slm_model *model, slm_session *session, const slm_grammar *grammar, const char *prompt,
               const slm_choice *choice, uint64_t seed) {
    size_t length = strlen(prompt), count = 0, opening = 0, capacity = length + 8;
    size_t bytes = slm_encode_bytes(model, length), words = slm_grammar_words(grammar);
    uint32_t *tokens = malloc((SLM_MAX_OPENING_TOKENS + capacity + ROOM) * sizeof *tokens);
    uint32_t *seen = calloc(words, sizeof *seen), *allowed = malloc(words * sizeof *allowed);
    void *scratch = memory_of(bytes);
    slm_status status = SLM_MEMORY;
    if (tokens != NULL && seen != NULL && allowed != NULL && scratch != NULL) {
        status = slm_opening_tokens(model, tokens, SLM_MAX_OPENING_TOKENS, &opening);
        if (status == SLM_OK) {
            status = slm_encode(model, prompt, length, 0, scratch, bytes, tokens + opening, capacity, &count);
        }
        if (status == SLM_OK) {
            status = follow(model, session, grammar, tokens, opening + count, choice, seed, seen, allowed);
            putchar('\n');
        }
    }
    free(scratch);
    free(allowed);
    free(seen);
    free(tokens);
    if (status == SLM_CONTEXT) {
        fputs("constrained: the context ended before the text did\n", stderr);
        return 1;
    }
    return status == SLM_OK ? 0 : fail("output", status);
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 6) {
        fputs("usage: constrained MODEL.slm PROMPT [TEMPERATURE [SEED [GRAMMAR]]]\n", stderr);
        return 2;
    }
    size_t length = 0, section_length = 0;
    void *section = argc > 5 ? read_file(argv[5], &section_length) : NULL;
    void *file = argc > 5 && section == NULL ? NULL : read_file(argv[1], &length);
    void *memory = NULL;
    int result = 2;
    static slm_model model;
    static slm_grammar grammar;
    slm_session *session;
    slm_status status;
    if (file == NULL) {
        free(section);
        return 2;
    }
    if ((status = slm_open(&model, file, length)) != SLM_OK ||
        (status = slm_grammar_open(&grammar, &model, section, section_length)) != SLM_OK) {
        result = fail(argv[1], status);
    } else if ((memory = memory_of(slm_session_bytes(&model))) == NULL) {
        fputs("constrained: out of memory\n", stderr);
    } else if ((status = slm_session_init(&session, &model, memory, slm_session_bytes(&model))) != SLM_OK) {
        result = fail(argv[1], status);
    } else {
        slm_choice choice;
        slm_default_choice(&model, &choice);
        if (argc > 3) {
            choice.temperature = strtof(argv[3], NULL);
        }
        result = run(&model, session, &grammar, argv[2], &choice, argc > 4 ? strtoull(argv[4], NULL, 10) : 0);
    }
    free(memory);
    free(section);
    free(file);
    return result;
}
