/* Asks an instruct model one question after the other:
 *
 *     chat [--ids] [--system TEXT] model.slm TOKENS QUESTION...      with --ids the answers' numbers, one a line
 *
 * The conversation's text is made of the chat frame of the artifact (slm_chat_*) and of the messages, and encoded whole
 * every time, so that the tokens are those that `slmc chat` makes with the chat template. What the session has read already
 * is not read again. Build: docs/c-api.md. A device has fixed buffers in place of realloc. */
#include "slm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, slm_status status) {
    fprintf(stderr, "chat: %s: %s\n", what, slm_message(status));
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
        fprintf(stderr, "chat: cannot read %s\n", path);
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

/* A text that grows. */
struct text {
    char *bytes;
    size_t length;
};

static int append(struct text *text, const char *bytes, size_t length) {
    char *grown = realloc(text->bytes, text->length + length + 1);
    if (grown == NULL) {
        return 0;
    }
    text->bytes = grown;
    if (length > 0) {
        memcpy(grown + text->length, bytes, length);
    }
    text->length += length;
    return 1;
}

/* A part of the frame, then a message. */
static slm_status append_message(struct text *text, const slm_model *model, uint32_t part, uint32_t role,
                                 const char *message, size_t message_length) {
    const char *frame;
    size_t length;
    slm_status status = slm_chat_text(model, part, &frame, &length);
    if (status == SLM_OK) {
        status = slm_chat_message(model, role, &message, &message_length);
    }
    if (status == SLM_OK && (!append(text, frame, length) || !append(text, message, message_length))) {
        status = SLM_MEMORY;
    }
    return status;
}

struct conversation {
    const slm_model *model;
    slm_session *session;
    /* Everything so far. */
    struct text text;
    /* The tokens that the session has read; there is room for a whole context. */
    uint32_t *read;
    size_t read_count;
    /* The set of them and of the token chosen last, a bit for every token of the vocabulary. */
    uint32_t *seen;
};

/* Reads the conversation so far, but for what has been read of it. */
static slm_status read_text(struct conversation *conversation) {
    size_t bytes = slm_encode_bytes(conversation->model, conversation->text.length);
    size_t capacity = conversation->text.length + 8, count = 0;
    uint32_t *tokens = malloc(capacity * sizeof *tokens);
    void *scratch = memory_of(bytes);
    slm_facts facts;
    slm_status status = tokens == NULL || scratch == NULL ? SLM_MEMORY : slm_describe(conversation->model, &facts);
    if (status == SLM_OK) {
        status = slm_encode(conversation->model, conversation->text.bytes, conversation->text.length, 0, scratch, bytes,
                            tokens, capacity, &count);
    }
    if (status == SLM_OK && count > facts.context) {
        status = SLM_CONTEXT;
    }
    if (status == SLM_OK) {
        size_t known = conversation->read_count;
        if (known >= count || memcmp(conversation->read, tokens, known * sizeof *tokens) != 0) {
            /* An answer does not always encode to the tokens it was made of: begin again then. */
            status = slm_reset(conversation->session);
            known = 0;
        }
        if (status == SLM_OK) {
            status = slm_step(conversation->session, tokens + known, count - known);
        }
        memcpy(conversation->read, tokens, count * sizeof *tokens);
        conversation->read_count = count;
    }
    free(scratch);
    free(tokens);
    return status;
}

/* Asks a question and writes the answer, of at most `most` tokens. */
static int ask(struct conversation *conversation, uint32_t part, const char *question, size_t most, int ids) {
    const slm_model *model = conversation->model;
    slm_choice choice;
    struct text answer = {NULL, 0};
    slm_decoder decoder;
    slm_facts facts;
    slm_status status = append_message(&conversation->text, model, part, SLM_ROLE_USER, question, strlen(question));
    if (status == SLM_OK) {
        /* What comes between the question and its answer, which is not there yet. */
        status = append_message(&conversation->text, model, SLM_CHAT_USER_TO_ASSISTANT, SLM_ROLE_ASSISTANT, NULL, 0);
    }
    if (status == SLM_OK) {
        status = read_text(conversation);
    }
    if (status == SLM_OK) {
        status = slm_describe(model, &facts);
    }
    if (status == SLM_OK) {
        status = slm_decode_begin(&decoder, model, 1);
    }
    if (status == SLM_OK) {
        /* As the model's makers recommend. */
        status = slm_default_choice(model, &choice);
    }
    if (status == SLM_OK) {
        memset(conversation->seen, 0, (facts.vocabulary / 32 + 1) * sizeof *conversation->seen);
        for (size_t index = 0; index < conversation->read_count; index++) {
            conversation->seen[conversation->read[index] / 32] |= 1u << conversation->read[index] % 32;
        }
    }
    for (size_t index = 0; status == SLM_OK && index < most; index++) {
        const float *logits;
        const char *bytes;
        size_t length;
        uint32_t token;
        if ((status = slm_logits(conversation->session, &logits, &length)) != SLM_OK ||
            (status = slm_choose(logits, length, &choice, conversation->seen, 0, index, &token)) != SLM_OK ||
            slm_is_end(model, token) ||
            (status = slm_decode(&decoder, token, &bytes, &length)) != SLM_OK) {
            break;
        }
        conversation->seen[token / 32] |= 1u << token % 32;
        if (!append(&answer, bytes, length)) {
            status = SLM_MEMORY;
            break;
        }
        if (ids) {
            printf("%lu\n", (unsigned long)token);
        } else {
            fwrite(bytes, 1, length, stdout);
            fflush(stdout);
        }
        /* The last token of an answer is not read: another may follow it. */
        if (index + 1 == most || conversation->read_count == facts.context) {
            break;
        }
        status = slm_step(conversation->session, &token, 1);
        conversation->read[conversation->read_count++] = token;
    }
    putchar('\n');
    if (status == SLM_OK) {
        /* An answer that was cut may end within a character, for which U+FFFD stands. */
        const char *said = answer.bytes;
        size_t length = answer.length, cut = 0;
        while ((status = slm_chat_message(model, SLM_ROLE_ASSISTANT, &said, &length)) == SLM_UTF8 && cut < 3) {
            cut++;
            length = answer.length - cut;
        }
        if (status == SLM_OK && (!append(&conversation->text, said, length) ||
                                 (cut > 0 && !append(&conversation->text, "\xEF\xBF\xBD", 3)))) {
            status = SLM_MEMORY;
        }
    }
    free(answer.bytes);
    return status == SLM_OK ? 0 : fail("question", status);
}

static int converse(const slm_model *model, slm_session *session, const char *system, size_t most, char **questions,
                    int count, int ids) {
    struct conversation conversation = {model, session, {NULL, 0}, NULL, 0, NULL};
    slm_chat_facts chat;
    slm_facts facts;
    uint32_t part = SLM_CHAT_OPEN_USER;
    slm_status status = slm_chat_describe(model, &chat);
    int result = 0;
    if (status == SLM_OK && chat.parts == 0) {
        fputs("chat: the artifact has no chat frame; `slmc inspect` says why\n", stderr);
        return 2;
    }
    if (status == SLM_OK) {
        status = slm_describe(model, &facts);
    }
    if (status == SLM_OK && facts.has_tokenizer == 0) {
        /* Without a tokenizer, put the tokens of slm_chat_tokens and those of the messages after each other. */
        status = SLM_NO_TOKENIZER;
    }
    if (status == SLM_OK) {
        conversation.read = malloc(facts.context * sizeof *conversation.read);
        conversation.seen = malloc((facts.vocabulary / 32 + 1) * sizeof *conversation.seen);
        if (conversation.read == NULL || conversation.seen == NULL) {
            status = SLM_MEMORY;
        }
    }
    if (status == SLM_OK && system != NULL) {
        status = append_message(&conversation.text, model, SLM_CHAT_OPEN_SYSTEM, SLM_ROLE_SYSTEM, system, strlen(system));
        part = SLM_CHAT_SYSTEM_TO_USER;
    }
    if (status != SLM_OK) {
        result = fail("conversation", status);
    }
    for (int index = 0; result == 0 && index < count; index++) {
        result = ask(&conversation, part, questions[index], most, ids);
        part = SLM_CHAT_ASSISTANT_TO_USER;
    }
    free(conversation.text.bytes);
    free(conversation.read);
    free(conversation.seen);
    return result;
}

int main(int argc, char **argv) {
    int at = 1, ids = 0;
    const char *system = NULL;
    if (at < argc && strcmp(argv[at], "--ids") == 0) {
        ids = 1;
        at++;
    }
    if (at + 1 < argc && strcmp(argv[at], "--system") == 0) {
        system = argv[at + 1];
        at += 2;
    }
    if (argc - at < 3) {
        fputs("usage: chat [--ids] [--system TEXT] MODEL.slm TOKENS QUESTION...\n", stderr);
        return 2;
    }
    if (slm_abi_version() != SLM_ABI_VERSION) {
        fputs("chat: slm.h and the library are of different versions\n", stderr);
        return 2;
    }
    size_t length = 0;
    void *file = read_file(argv[at], &length), *memory = NULL;
    static slm_model model;
    slm_session *session;
    int result = 2;
    if (file == NULL) {
        return 2;
    }
    slm_status status = slm_open(&model, file, length);
    if (status != SLM_OK) {
        char why[200];
        slm_model_error(&model, why, sizeof why);
        fprintf(stderr, "chat: %s: %s\n", argv[at], why);
    } else if ((memory = memory_of(slm_session_bytes(&model))) == NULL) {
        fputs("chat: out of memory\n", stderr);
    } else if ((status = slm_session_init(&session, &model, memory, slm_session_bytes(&model))) != SLM_OK) {
        result = fail(argv[at], status);
    } else {
        result = converse(&model, session, system, strtoul(argv[at + 1], NULL, 10), argv + at + 2, argc - at - 2, ids);
    }
    free(memory);
    free(file);
    return result;
}
