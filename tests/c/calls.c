/* Calls of the C interface as a careful and as a careless program makes them: calls MODEL.slm. Memory is exactly as
 * long as required, so that a sanitizer sees a byte too many. Ends with 0 and says how many things it looked at. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rows {
    size_t count, width, last;
};

static void count_row(void *user, size_t position, const float *row, size_t width) {
    struct rows *rows = user;
    rows->count++;
    rows->width = width;
    rows->last = position;
    EXPECT(row != NULL && row[0] == row[0] && row[width - 1] == row[width - 1]);
}

static void text(const slm_model *model, const slm_facts *facts) {
    static const char prompt[] = "Once upon a time, the fox \xF0\x9F\xA6\x8A said: na\xC3\xAFve!";
    size_t length = strlen(prompt), bytes = slm_encode_bytes(model, length), count, short_count;
    uint32_t tokens[256], few[1];
    unsigned char *memory = memory_of(bytes);
    EXPECT(facts->has_tokenizer == 1 && bytes > 0);
    EXPECT(slm_encode_bytes(model, (size_t)-1) == 0);
    EXPECT(slm_encode(model, prompt, length, 0, memory, bytes, tokens, 256, &count) == SLM_OK);
    EXPECT(count > 4 && count < 256);
    EXPECT(slm_encode(model, prompt, length, 0, memory, bytes, few, 1, &short_count) == SLM_CAPACITY);
    EXPECT(short_count == count && few[0] == tokens[0]);
    EXPECT(slm_encode(model, prompt, length, 0, memory, bytes, NULL, 0, &short_count) == SLM_CAPACITY);
    EXPECT(slm_encode(model, prompt, length, 0, memory, bytes, NULL, 1, &short_count) == SLM_NULL);
    EXPECT(slm_encode(model, prompt, length, 2, memory, bytes, tokens, 256, &short_count) == SLM_ARGUMENT);
    EXPECT(slm_encode(model, prompt, length, 0, memory + 1, bytes - 1, tokens, 256, &short_count) == SLM_ALIGNMENT);
    EXPECT(slm_encode(model, prompt, length, 0, NULL, bytes, tokens, 256, &short_count) == SLM_NULL);
    EXPECT(slm_encode(model, prompt, length, 0, memory, 0, tokens, 256, &short_count) == SLM_MEMORY);
    EXPECT(slm_encode(model, NULL, length, 0, memory, bytes, tokens, 256, &short_count) == SLM_NULL);
    EXPECT(slm_encode(model, NULL, 0, 0, memory, bytes, tokens, 256, &short_count) == SLM_OK && short_count == 0);
    EXPECT(slm_encode(model, prompt, length, 0, memory, bytes, tokens, 256, NULL) == SLM_NULL);
    EXPECT(slm_encode(model, "\xF0\x9F", 2, 0, memory, bytes, tokens, 256, &short_count) == SLM_UTF8);
    EXPECT(slm_encode(model, prompt, length, 0, memory, bytes, tokens, 256, &count) == SLM_OK);

    slm_decoder decoder;
    char written[512];
    size_t at = 0;
    EXPECT(slm_decode_begin(&decoder, model, 2) == SLM_ARGUMENT);
    EXPECT(slm_decode_begin(NULL, model, 1) == SLM_NULL);
    EXPECT(slm_decode_begin(&decoder, model, 1) == SLM_OK);
    for (size_t index = 0; index < count; index++) {
        const char *part;
        size_t part_length;
        EXPECT(slm_decode(&decoder, tokens[index], &part, &part_length) == SLM_OK);
        EXPECT(at + part_length < sizeof written);
        memcpy(written + at, part, part_length);
        at += part_length;
        EXPECT(slm_decode(&decoder, facts->vocabulary, &part, &part_length) == SLM_TOKEN);
    }
    /* An encoder's tokenizer may write words apart; a decoder's gives back what it was given. */
    EXPECT(facts->kind != 1 || (at == length && memcmp(written, prompt, length) == 0));
    free(memory);
}

static void run(const slm_model *model, const slm_facts *facts) {
    size_t bytes = slm_session_bytes(model), count = 7;
    unsigned char *memory = memory_of(bytes + 64);
    slm_session *session = (slm_session *)memory;
    const float *logits;
    char why[100];
    uint32_t tokens[4] = {1, 2, 3, 0}, outside = facts->vocabulary;
    struct rows rows = {0, 0, 0};

    memset(memory, 0xA5, bytes + 64);
    EXPECT(slm_session_init(&session, model, memory, bytes - 1) == SLM_MEMORY && session == NULL);
    EXPECT(slm_session_init(&session, model, memory + 8, bytes) == SLM_ALIGNMENT);
    EXPECT(slm_session_init(&session, model, NULL, bytes) == SLM_NULL);
    EXPECT(slm_session_init(NULL, model, memory, bytes) == SLM_NULL);
    EXPECT(slm_step((slm_session *)memory, tokens, 3) == SLM_NOT_OPEN);
    EXPECT(slm_session_init(&session, model, memory, bytes) == SLM_OK && session != NULL);
    EXPECT(slm_logits(session, &logits, &count) == SLM_EMPTY && logits == NULL && count == 0);
    EXPECT(slm_run(session, tokens, 3, NULL, NULL) == SLM_NULL);
    EXPECT(slm_run(session, NULL, 3, count_row, &rows) == SLM_NULL);
    EXPECT(slm_run(session, tokens, 0, count_row, &rows) == SLM_EMPTY);
    EXPECT(slm_run(session, tokens, 3, count_row, &rows) == SLM_OK);
    EXPECT(rows.width == facts->output_width && rows.count == (facts->output >= 4 ? 1u : 3u));
    /* A classifier says through how many layers a text went, and how sure it is. */
    EXPECT((slm_exit_layers(session) > 0) == (facts->output == 4));
    EXPECT((slm_confidence(session) > 0.0f) == (facts->output == 4) && slm_confidence(session) <= 1.0f);
    EXPECT(slm_set_leaving(session, 0) == SLM_OK && slm_set_leaving(session, 1) == SLM_OK);
    EXPECT(slm_exit_layers(NULL) == 0 && slm_set_leaving(NULL, 1) == SLM_NULL);
    if (facts->kind != 1) {
        EXPECT(slm_step(session, tokens, 1) == SLM_KIND);
        EXPECT(slm_session_error(session, why, sizeof why) > 10 && strstr(why, "encoder") != NULL);
    } else {
        EXPECT(slm_positions(session) == 3);
        EXPECT(slm_step(session, &outside, 1) == SLM_TOKEN);
        EXPECT(slm_session_error(session, why, sizeof why) > 10 && strstr(why, "vocabulary") != NULL);
        EXPECT(slm_logits(session, &logits, &count) == SLM_EMPTY);
        EXPECT(slm_step(session, tokens, 1) == SLM_OK && slm_positions(session) == 4);
        EXPECT(slm_session_error(session, why, sizeof why) == 0 && why[0] == 0);
        EXPECT(slm_logits(session, &logits, &count) == SLM_OK && count == facts->output_width);
        float first = logits[0];
        EXPECT(slm_reset(session) == SLM_OK && slm_positions(session) == 0);
        EXPECT(slm_step(session, tokens, 3) == SLM_OK && slm_step(session, tokens, 1) == SLM_OK);
        EXPECT(slm_logits(session, &logits, &count) == SLM_OK && logits[0] == first);
        EXPECT(slm_logits(session, NULL, &count) == SLM_NULL && slm_logits(session, &logits, NULL) == SLM_NULL);
        /* To the end of the context, and one further. */
        while (slm_positions(session) < facts->context) {
            EXPECT(slm_step(session, tokens, 1) == SLM_OK);
        }
        EXPECT(slm_step(session, tokens, 1) == SLM_CONTEXT);
        EXPECT(slm_reset(session) == SLM_OK && slm_step(session, tokens, 1) == SLM_OK);
    }
    EXPECT(slm_self_test(model, memory, bytes - 1) == SLM_MEMORY);
    EXPECT(slm_self_test(model, memory + 4, bytes) == SLM_ALIGNMENT);
    EXPECT(slm_self_test(model, NULL, bytes) == SLM_NULL);
    EXPECT(slm_self_test(model, memory, bytes) == SLM_OK);
    free(memory);
}

/* The lists begin with what the facts say, and are judged as every array is. */
static void special_tokens(const slm_model *model, const slm_facts *facts) {
    uint32_t tokens[SLM_MAX_END_TOKENS], none[1] = {0};
    size_t count = 99, ends = 99;
    static slm_model closed;
    EXPECT(slm_opening_tokens(model, tokens, SLM_MAX_OPENING_TOKENS, &count) == SLM_OK);
    EXPECT(count == 0 ? facts->bos == SLM_NO_TOKEN : tokens[0] == facts->bos);
    EXPECT(slm_end_tokens(model, tokens, SLM_MAX_END_TOKENS, &ends) == SLM_OK);
    EXPECT(ends == 0 ? facts->eos == SLM_NO_TOKEN : tokens[0] == facts->eos);
    EXPECT(slm_is_end(model, SLM_NO_TOKEN) == 0 && slm_is_end(NULL, 0) == 0 && slm_is_end(&closed, 0) == 0);
    for (size_t index = 0; index < ends; index++) {
        EXPECT(slm_is_end(model, tokens[index]) == 1);
    }
    EXPECT(slm_end_tokens(model, NULL, 0, &count) == (ends == 0 ? SLM_OK : SLM_CAPACITY) && count == ends);
    EXPECT(slm_end_tokens(model, NULL, 1, &count) == SLM_NULL && slm_end_tokens(model, none, 1, NULL) == SLM_NULL);
    EXPECT(slm_opening_tokens(&closed, none, 1, &count) == SLM_NOT_OPEN && count == 0);
    EXPECT(slm_opening_tokens(NULL, none, 1, &count) == SLM_NULL);
}

/* The embedding's facts agree with those of the output. */
static void embedding(const slm_model *model, const slm_facts *facts) {
    slm_embedding_facts found = {9, 9};
    static slm_model closed;
    EXPECT(slm_embedding_describe(model, &found) == SLM_OK && found.pooling <= SLM_POOLING_LAST);
    EXPECT((facts->output == 5) == (found.pooling != SLM_POOLING_NONE));
    EXPECT(found.normalized == 0 || (found.normalized == 1 && facts->output == 5));
    EXPECT(slm_embedding_describe(model, NULL) == SLM_NULL && slm_embedding_describe(&closed, &found) == SLM_NOT_OPEN);
}

/* The recommended choice is one that can be made, and every parameter of a choice counts. */
static void choice(const slm_model *model) {
    static const float logits[4] = {1.0f, 3.0f, 2.9f, -1.0f};
    static const uint32_t seen[1] = {1u << 1};
    static slm_model closed;
    slm_choice own, plain = {0.0f, 0, 65536, 0, 1.0f};
    slm_sampling first = {1.5f, 3, 60000};
    uint32_t token = 99, same = 98;
    EXPECT(slm_default_choice(model, &own) == SLM_OK && slm_default_choice(model, NULL) == SLM_NULL);
    EXPECT(slm_default_choice(&closed, &plain) == SLM_NOT_OPEN && plain.top_p == 65536);
    EXPECT(slm_choose(logits, 4, &own, seen, 0, 0, &token) == SLM_OK && token < 4);
    EXPECT(slm_choose(logits, 4, &plain, NULL, 0, 0, &token) == SLM_OK && token == 1);
    plain.repetition_penalty = 1.5f;
    EXPECT(slm_choose(logits, 4, &plain, seen, 0, 0, &token) == SLM_OK && token == 2);
    EXPECT(slm_choose(logits, 4, &plain, NULL, 0, 0, &token) == SLM_NULL);
    plain.repetition_penalty = 0.0f;
    EXPECT(slm_choose(logits, 4, &plain, seen, 0, 0, &token) == SLM_ARGUMENT);
    for (uint64_t index = 0; index < 64; index++) {
        slm_choice all = {1.5f, 3, 60000, 0, 1.0f}, likely = {1.5f, 0, 65536, 60000, 1.0f};
        EXPECT(slm_choose(logits, 4, &all, NULL, 7, index, &token) == SLM_OK);
        EXPECT(slm_sample(logits, 4, &first, 7, index, &same) == SLM_OK && same == token);
        /* Only the second and third are 60000/65536 as likely as the likeliest. */
        EXPECT(slm_choose(logits, 4, &likely, NULL, 7, index, &token) == SLM_OK && (token == 1 || token == 2));
    }
    plain.repetition_penalty = 1.0f;
    plain.min_p = 65537;
    EXPECT(slm_choose(logits, 4, &plain, NULL, 0, 0, &token) == SLM_ARGUMENT);
    EXPECT(slm_choose(logits, 0, &own, seen, 0, 0, &token) == SLM_EMPTY);
    EXPECT(slm_choose(logits, 4, NULL, seen, 0, 0, &token) == SLM_NULL);
    EXPECT(slm_choose(logits, 4, &own, seen, 0, 0, NULL) == SLM_NULL);
}

static void put(unsigned char *bytes, size_t at, size_t width, uint32_t number) {
    for (size_t index = 0; index < width; index++) {
        bytes[at + index] = (unsigned char)(number >> 8 * index);
    }
}

/* A grammar of one state that any text follows, for any vocabulary: docs/format.md. */
static unsigned char *any_text(uint32_t vocabulary, size_t *length) {
    size_t words = (vocabulary + 31) / 32, sets = 32 + 256 + 16 + 2;
    unsigned char *bytes = calloc(sets + 4 * words, 1);
    if (bytes == NULL) {
        exit(3);
    }
    *length = sets + 4 * words;
    put(bytes, 0, 2, 1);           /* version */
    put(bytes, 2, 1, 4);           /* bytes of an id */
    put(bytes, 3, 1, 16);          /* depth */
    put(bytes, 4, 2, 1);           /* classes */
    put(bytes, 6, 2, 1);           /* states */
    put(bytes, 12, 2, 1);          /* sets */
    put(bytes, 16, 4, 1);          /* entries */
    put(bytes, 24, 4, vocabulary);
    put(bytes, 288 + 8, 2, 65535); /* the state has no set, */
    put(bytes, 288 + 12, 1, 1 | 2); /* is final, and every token is tried */
    for (uint32_t token = 0; token < vocabulary; token++) {
        bytes[sets + token / 8] |= (unsigned char)(1 << token % 8);
    }
    return bytes;
}

/* A grammar that the artifact does not have, one that the program has, and a step and a choice for its tokens. */
static void grammar(const slm_model *model, const slm_facts *facts) {
    static slm_grammar own, closed;
    static slm_model closed_model;
    slm_grammar_state state, before;
    size_t length, count = 99, words = (facts->vocabulary + 31) / 32;
    unsigned char *section = any_text(facts->vocabulary, &length);
    uint32_t *allowed = malloc(words * sizeof *allowed), token = 99, run[4];
    EXPECT(allowed != NULL);
    EXPECT(slm_grammar_open(&own, model, NULL, 0) == SLM_NO_GRAMMAR && slm_grammar_words(&own) == 0);
    EXPECT(slm_grammar_open(&own, &closed_model, NULL, 0) == SLM_NOT_OPEN);
    EXPECT(slm_grammar_open(&own, model, section, length - 1) == SLM_FORMAT);
    EXPECT(slm_grammar_open(&own, model, section, length) == SLM_OK && slm_grammar_words(&own) == words);
    EXPECT(slm_grammar_start(&closed, &state) == SLM_NOT_OPEN && slm_grammar_start(&own, NULL) == SLM_NULL);
    EXPECT(slm_grammar_start(&own, &state) == SLM_OK);
    EXPECT(slm_grammar_accepts(&own, &state) == 1 && slm_grammar_complete(&own, &state) == 0);
    EXPECT(slm_grammar_forced(&own, &state, run, 4, &count) == SLM_OK && count == 0);
    EXPECT(slm_grammar_allowed(&own, &state, allowed, words - 1, &count) == SLM_CAPACITY);
    EXPECT(slm_grammar_allowed(&own, &state, NULL, words, &count) == SLM_NULL);
    EXPECT(slm_grammar_allowed(&own, &state, allowed, words, &count) == SLM_OK && count > 0);
    before = state;
    EXPECT(slm_grammar_advance(&own, &state, facts->vocabulary) == SLM_REFUSED);
    EXPECT(memcmp(&before, &state, sizeof state) == 0);
    if (facts->kind == 1 && facts->output == 2) {
        slm_session *session;
        slm_choice likeliest = {0.0f, 0, 65536, 0, 1.0f};
        const float *logits;
        size_t bytes = slm_session_bytes(model), width;
        unsigned char *memory = memory_of(bytes);
        uint32_t first = 0, whole = 98;
        EXPECT(slm_session_init(&session, model, memory, bytes) == SLM_OK);
        EXPECT(slm_step(session, &first, 1) == SLM_OK && slm_logits(session, &logits, &width) == SLM_OK);
        EXPECT(slm_choose_among(logits, width, &likeliest, NULL, allowed, 0, 0, &whole) == SLM_OK);
        EXPECT(slm_reset(session) == SLM_OK);
        EXPECT(slm_step_allowed(session, &first, 1, NULL, words) == SLM_NULL);
        EXPECT(slm_step_allowed(session, &first, 1, allowed, words) == SLM_OK);
        EXPECT(slm_logits(session, &logits, &width) == SLM_OK);
        EXPECT(slm_choose_among(logits, width, &likeliest, NULL, allowed, 0, 0, &token) == SLM_OK && token == whole);
        EXPECT(slm_grammar_advance(&own, &state, token) == SLM_OK);
        memset(allowed, 0, words * sizeof *allowed);
        EXPECT(slm_choose_among(logits, width, &likeliest, NULL, allowed, 0, 0, &token) == SLM_EMPTY);
        free(memory);
    }
    if (facts->eos != SLM_NO_TOKEN && slm_grammar_start(&own, &state) == SLM_OK) {
        EXPECT(slm_grammar_advance(&own, &state, facts->eos) == SLM_OK && slm_grammar_complete(&own, &state) == 1);
        EXPECT(slm_grammar_allowed(&own, &state, allowed, words, &count) == SLM_OK && count == 0);
    }
    free(allowed);
    free(section);
}

/* The texts and tokens of the chat frame, and what is answered where there is none. */
static void chat(const slm_model *model) {
    slm_chat_facts facts = {9, 9, 9};
    static slm_model closed;
    static const char spaced[] = " \n a b \t", broken[] = "\xF0\x9F";
    const char *said = spaced, *part = spaced;
    size_t length = sizeof spaced - 1, count = 99;
    uint32_t tokens[256];
    EXPECT(slm_chat_describe(model, &facts) == SLM_OK && (facts.parts == 0 || facts.parts == 5));
    EXPECT(slm_chat_describe(model, NULL) == SLM_NULL && slm_chat_describe(&closed, &facts) == SLM_NOT_OPEN);
    EXPECT(slm_chat_text(model, 5, &part, &count) == SLM_ARGUMENT && part == NULL && count == 0);
    EXPECT(slm_chat_text(model, 0, NULL, &count) == SLM_NULL && slm_chat_text(model, 0, &part, NULL) == SLM_NULL);
    EXPECT(slm_chat_tokens(model, 5, tokens, 256, &count) == SLM_ARGUMENT && count == 0);
    EXPECT(slm_chat_tokens(model, 0, tokens, 256, NULL) == SLM_NULL);
    EXPECT(slm_chat_message(model, 3, &said, &length) == SLM_ARGUMENT && said == spaced);
    EXPECT(slm_chat_message(model, 0, NULL, &length) == SLM_NULL && slm_chat_message(model, 0, &said, NULL) == SLM_NULL);
    if (facts.parts == 0) {
        EXPECT(facts.has_tokens == 0 && facts.has_system == 0);
        EXPECT(slm_chat_text(model, SLM_CHAT_OPEN_USER, &part, &count) == SLM_ARGUMENT);
        EXPECT(slm_chat_message(model, SLM_ROLE_USER, &said, &length) == SLM_ARGUMENT && said == spaced);
        return;
    }
    for (uint32_t number = 0; number < facts.parts; number++) {
        int of_system = number == SLM_CHAT_OPEN_SYSTEM || number == SLM_CHAT_SYSTEM_TO_USER;
        slm_status expected = of_system && facts.has_system == 0 ? SLM_ARGUMENT : SLM_OK;
        EXPECT(slm_chat_text(model, number, &part, &count) == expected);
        if (expected != SLM_OK) {
            continue;
        }
        EXPECT(slm_chat_tokens(model, number, tokens, 256, &length) == (facts.has_tokens ? SLM_OK : SLM_EMPTY));
        if (facts.has_tokens == 1 && length > 0) {
            size_t again = 0;
            EXPECT(slm_chat_tokens(model, number, NULL, 0, &again) == SLM_CAPACITY && again == length);
            /* The tokens are those of the text. */
            uint32_t own[256];
            size_t bytes = slm_encode_bytes(model, count), encoded = 0;
            unsigned char *memory = memory_of(bytes);
            EXPECT(slm_encode(model, part, count, 0, memory, bytes, own, 256, &encoded) == SLM_OK);
            EXPECT(encoded == length && memcmp(own, tokens, length * sizeof *own) == 0);
            free(memory);
        }
    }
    said = spaced;
    length = sizeof spaced - 1;
    EXPECT(slm_chat_message(model, SLM_ROLE_USER, &said, &length) == SLM_OK);
    EXPECT(length == sizeof spaced - 1 ? said == spaced : length == 3 && memcmp(said, "a b", 3) == 0);
    said = broken;
    length = 2;
    EXPECT(slm_chat_message(model, SLM_ROLE_USER, &said, &length) == SLM_UTF8 && said == broken);
}

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        return 3;
    }
    size_t length = (size_t)ftell(file);
    unsigned char *bytes = malloc(length);
    rewind(file);
    if (bytes == NULL || fread(bytes, 1, length, file) != length) {
        return 3;
    }
    fclose(file);
    static slm_model model, copy;
    slm_facts facts;
    EXPECT(slm_describe(&model, &facts) == SLM_NOT_OPEN && slm_session_bytes(&model) == 0);
    EXPECT(slm_open(&model, bytes, length) == SLM_OK && slm_verify(&model) == SLM_OK);
    EXPECT(slm_describe(&model, &facts) == SLM_OK && slm_describe(&model, NULL) == SLM_NULL);
    special_tokens(&model, &facts);
    /* A copy serves as well, and a model needs nothing of the one that was opened before. */
    memcpy(&copy, &model, sizeof copy);
    memset(&model, 0, sizeof model);
    text(&copy, &facts);
    grammar(&copy, &facts);
    chat(&copy);
    embedding(&copy, &facts);
    choice(&copy);
    run(&copy, &facts);
    /* Every prefix is refused or complete, and no byte behind it is read. */
    for (size_t cut = 0; cut < length; cut += 1 + length / 97) {
        unsigned char *prefix = malloc(cut + 1);
        if (prefix == NULL) {
            return 3;
        }
        prefix = realloc(prefix, cut == 0 ? 1 : cut);
        memcpy(prefix, bytes, cut);
        EXPECT(slm_open(&model, prefix, cut) == SLM_FORMAT && slm_model_error(&model, NULL, 0) > 10);
        free(prefix);
    }
    /* One changed byte is seen. */
    bytes[length / 2] ^= 0x10;
    slm_status changed = slm_open(&model, bytes, length);
    EXPECT(changed == SLM_FORMAT || slm_verify(&model) == SLM_DIGEST);
    free(bytes);
    printf("%d\n", looked_at);
    return 0;
}
