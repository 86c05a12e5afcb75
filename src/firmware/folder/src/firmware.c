/* From the artifact in flash to an output: opened, its digests verified, its golden prompts compared with the build machine's
 * logits, then the prompt of firmware_config.h. A decoder continues it as `slmc generate` does, token for token; an encoder says
 * its label, or the bits of its rows. All memory is static; model_memory.h says how much, and why. */
#include "firmware.h"

#include "firmware_config.h"
#include "model_memory.h"
#include "say.h"
#include "slm.h"

/* Where the planned memory lies: a linker script may map the section .bss.slm_memory. It need not be zero. */
#if defined(__ELF__)
#define PLANNED __attribute__((aligned(SLM_MEMORY_ALIGNMENT), section(".bss.slm_memory")))
#else
#define PLANNED __attribute__((aligned(SLM_MEMORY_ALIGNMENT)))
#endif

#define PROMPT_BYTES (sizeof FIRMWARE_PROMPT - 1)
#if FIRMWARE_CHAT
#define TEXT_BYTES (PROMPT_BYTES + MODEL_CHAT_FRAME_BYTES)
#else
#define TEXT_BYTES PROMPT_BYTES
#endif
/* Room for the tokens of a text: no tokenizer makes more tokens than bytes, but for what it puts around. */
#define TEXT_TOKENS (TEXT_BYTES + SLM_MAX_OPENING_TOKENS + 8)
#define TOKEN_WORDS ((MODEL_VOCABULARY + 31) / 32)

/* Session and self-test use the same bytes, one after the other. */
static uint8_t session_memory[MODEL_SESSION_BYTES] PLANNED;
#if MODEL_HAS_TOKENIZER
static uint8_t encode_memory[MODEL_ENCODE_BYTES(TEXT_BYTES)] PLANNED;
#if FIRMWARE_CHAT
static char text_memory[TEXT_BYTES + 1];
#endif
#else
static const uint32_t prompt_tokens[] = {FIRMWARE_PROMPT_TOKENS};
#endif

_Static_assert(MODEL_ARTIFACT_BYTES <= MODEL_FLASH_LIMIT, "the artifact is larger than the flash of the target file");
_Static_assert(MODEL_PLANNED_BYTES <= MODEL_RAM_LIMIT, "the planned memory is larger than the RAM of the target file");

static slm_model model;

static int fail(const char *what, slm_status status) {
    say("firmware: ");
    say(what);
    say(": ");
    say(slm_message(status));
    say("\n");
    return 1;
}

static int fail_open(void) {
    static char why[200];
    slm_model_error(&model, why, sizeof why);
    say("firmware: the artifact: ");
    say(why);
    say("\n");
    return 1;
}

/* The prompt's tokens, with those that a text opens with where the model continues it. */
static slm_status read_prompt(uint32_t *tokens, size_t *count) {
#if MODEL_HAS_TOKENIZER
    const char *text = FIRMWARE_PROMPT;
    size_t length = PROMPT_BYTES, opening = 0, encoded = 0;
    slm_status status = SLM_OK;
#if FIRMWARE_CHAT
    const char *parts[3] = {NULL, FIRMWARE_PROMPT, NULL};
    size_t lengths[3] = {0, PROMPT_BYTES, 0};
    if ((status = slm_chat_text(&model, SLM_CHAT_OPEN_USER, &parts[0], &lengths[0])) != SLM_OK ||
        (status = slm_chat_message(&model, SLM_ROLE_USER, &parts[1], &lengths[1])) != SLM_OK ||
        (status = slm_chat_text(&model, SLM_CHAT_USER_TO_ASSISTANT, &parts[2], &lengths[2])) != SLM_OK) {
        return status;
    }
    length = 0;
    for (size_t part = 0; part < 3; part++) {
        for (size_t index = 0; index < lengths[part] && length < TEXT_BYTES; index++) {
            text_memory[length++] = parts[part][index];
        }
    }
    text = text_memory;
#elif MODEL_IS_DECODER
    status = slm_opening_tokens(&model, tokens, SLM_MAX_OPENING_TOKENS, &opening);
#endif
    if (status == SLM_OK) {
        status = slm_encode(&model, text, length, !MODEL_IS_DECODER, encode_memory, sizeof encode_memory,
                            tokens + opening, TEXT_TOKENS - opening, &encoded);
    }
    *count = opening + encoded;
    return status;
#else
    *count = sizeof prompt_tokens / sizeof *prompt_tokens;
    for (size_t index = 0; index < *count; index++) {
        tokens[index] = prompt_tokens[index];
    }
    return SLM_OK;
#endif
}

#if MODEL_HAS_TOKENIZER
#define PROMPT_TOKENS TEXT_TOKENS
#else
#define PROMPT_TOKENS (sizeof prompt_tokens / sizeof *prompt_tokens)
#endif

#if MODEL_IS_DECODER
/* Most tokens that are read together after a choice. */
#define ROOM 64

static uint32_t pending[PROMPT_TOKENS + ROOM];
static uint32_t seen[TOKEN_WORDS];
/* What is said at the end, to be compared with `slmc generate --json`. */
static uint32_t output[FIRMWARE_TOKENS];
static size_t outputs;

static void mark(const uint32_t *tokens, size_t count) {
    for (size_t index = 0; index < count; index++) {
        seen[tokens[index] / 32] |= 1u << tokens[index] % 32;
    }
}

static slm_status put(slm_decoder *decoder, uint32_t token) {
    const char *text;
    size_t length;
    slm_status status = slm_decode(decoder, token, &text, &length);
    if (status == SLM_OK) {
        output[outputs++] = token;
        port_write(text, length);
    }
    return status;
}

#if MODEL_HAS_PREFIX
/* Takes up what sequences begin with, where the prompt does: the tokens of it that need not be read. */
static slm_status take_prefix(slm_session *session, const uint32_t *tokens, size_t count, size_t *taken) {
    static uint32_t prefix[MODEL_PREFIX_TOKENS];
    size_t length = 0;
    slm_status status = slm_prefix_tokens(&model, prefix, MODEL_PREFIX_TOKENS, &length);
    *taken = 0;
    if (status != SLM_OK || length >= count) {
        return status;
    }
    for (size_t index = 0; index < length; index++) {
        if (prefix[index] != tokens[index]) {
            return SLM_OK;
        }
    }
    return slm_restore_prefix(session, taken);
}
#endif

#if MODEL_HAS_GRAMMAR
/* Follows the grammar until the text is complete, the tokens are used up or the context is full. */
static slm_status go_on(slm_session *session, slm_decoder *decoder, const slm_choice *choice, size_t count, size_t read) {
    static slm_grammar grammar;
    static uint32_t allowed[TOKEN_WORDS];
    slm_grammar_state state;
    uint64_t draws = 0;
    slm_status status = slm_grammar_open(&grammar, &model, NULL, 0);
    if (status == SLM_OK) {
        status = slm_grammar_start(&grammar, &state);
    }
    while (status == SLM_OK) {
        /* The last token that is said need not be read, so it may be one more than the context. */
        size_t left = MODEL_CONTEXT + 1 > read + count ? MODEL_CONTEXT + 1 - read - count : 0;
        size_t room = FIRMWARE_TOKENS - outputs, forced, number, width;
        const float *logits;
        uint32_t token;
        room = room < left ? room : left;
        room = room < ROOM ? room : ROOM;
        if ((status = slm_grammar_forced(&grammar, &state, pending + count, room, &forced)) != SLM_OK) {
            break;
        }
        for (size_t index = 0; index < forced && status == SLM_OK; index++) {
            status = put(decoder, pending[count + index]);
        }
        mark(pending + count, forced);
        count += forced;
        if (status != SLM_OK || slm_grammar_complete(&grammar, &state) || outputs == FIRMWARE_TOKENS ||
            read + count > MODEL_CONTEXT) {
            break;
        }
        if (forced == ROOM) {
            status = slm_step(session, pending, count);
            read += count;
            count = 0;
            continue;
        }
        if ((status = slm_grammar_allowed(&grammar, &state, allowed, TOKEN_WORDS, &number)) != SLM_OK) {
            break;
        }
        if (number == 0) {
            /* The text may end, and the model has no token that says so. */
            status = slm_grammar_accepts(&grammar, &state) ? SLM_OK : SLM_EMPTY;
            break;
        }
        /* After a full run nothing may be left to read: its last step has the logits. */
        if (count > 0) {
            status = slm_step_allowed(session, pending, count, allowed, TOKEN_WORDS);
            read += count;
        }
        if (status != SLM_OK || (status = slm_logits(session, &logits, &width)) != SLM_OK ||
            (status = slm_choose_among(logits, width, choice, seen, allowed, FIRMWARE_SEED, draws++, &token)) !=
                SLM_OK ||
            (status = slm_grammar_advance(&grammar, &state, token)) != SLM_OK || slm_is_end(&model, token)) {
            break;
        }
        mark(&token, 1);
        status = put(decoder, token);
        pending[0] = token;
        count = 1;
        if (outputs == FIRMWARE_TOKENS) {
            break;
        }
    }
    return status;
}
#else
/* Chooses and reads token after token until the model ends the text, the tokens are used up or the context is full. */
static slm_status go_on(slm_session *session, slm_decoder *decoder, const slm_choice *choice, size_t count, size_t read) {
    slm_status status = SLM_OK;
    while (outputs < FIRMWARE_TOKENS && read + count <= MODEL_CONTEXT) {
        const float *logits;
        size_t width;
        uint32_t token;
        if ((status = slm_step(session, pending, count)) != SLM_OK ||
            (status = slm_logits(session, &logits, &width)) != SLM_OK ||
            (status = slm_choose(logits, width, choice, seen, FIRMWARE_SEED, outputs, &token)) != SLM_OK ||
            slm_is_end(&model, token) || (status = put(decoder, token)) != SLM_OK) {
            break;
        }
        read += count;
        mark(&token, 1);
        pending[0] = token;
        count = 1;
    }
    return status;
}
#endif

static int run(slm_session *session) {
    static slm_decoder decoder;
    slm_choice choice;
    size_t count = 0, taken = 0;
    slm_status status = read_prompt(pending, &count);
    if (status == SLM_OK && count > MODEL_CONTEXT) {
        status = SLM_CONTEXT;
    }
    if (status == SLM_OK) {
        status = slm_default_choice(&model, &choice);
    }
    if (status == SLM_OK) {
        status = slm_decode_begin(&decoder, &model, FIRMWARE_CHAT || PROMPT_BYTES == 0);
    }
    if (status != SLM_OK) {
        return fail("the prompt", status);
    }
    mark(pending, count);
#if MODEL_HAS_PREFIX
    if ((status = take_prefix(session, pending, count, &taken)) != SLM_OK) {
        return fail("the prefix", status);
    }
    for (size_t index = taken; index < count; index++) {
        pending[index - taken] = pending[index];
    }
#endif
#if !FIRMWARE_CHAT
    say(FIRMWARE_PROMPT);
#endif
    status = go_on(session, &decoder, &choice, count - taken, taken);
    say("\n");
    if (status != SLM_OK) {
        return fail("the output", status);
    }
    say("tokens");
    for (size_t index = 0; index < outputs; index++) {
        say(index == 0 ? " " : ",");
        say_number(output[index]);
    }
    say("\n");
    return 0;
}
#else
static uint32_t sequence[PROMPT_TOKENS];

#if MODEL_OUTPUT == 4
static const char *const labels[] = {MODEL_LABELS};
#endif

/* Of a row of labels the likeliest, else the position and the bits of the first values. */
static void say_row(void *user, size_t position, const float *row, size_t width) {
    size_t best = 0;
    (void)user;
#if MODEL_OUTPUT == 4
    for (size_t index = 1; index < width; index++) {
        best = row[index] > row[best] ? index : best;
    }
    say("label ");
    say_number(best);
    if (best < sizeof labels / sizeof *labels) {
        say(" ");
        say(labels[best]);
    }
    say("\nlogits");
#else
    say("row ");
    say_number(position);
#endif
    (void)position;
    for (best = 0; best < width && best < 8; best++) {
        say(" ");
        say_bits(row[best]);
    }
    say("\n");
}

static int run(slm_session *session) {
    size_t count = 0;
    slm_status status = read_prompt(sequence, &count);
    if (status != SLM_OK) {
        return fail("the text", status);
    }
    say(FIRMWARE_PROMPT);
    say("\n");
    status = slm_run(session, sequence, count, say_row, NULL);
    return status == SLM_OK ? 0 : fail("the output", status);
}
#endif

int firmware_run(void) {
    slm_session *session;
    slm_status status;
    if (slm_abi_version() != SLM_ABI_VERSION || slm_artifact_bytes != MODEL_ARTIFACT_BYTES) {
        say("firmware: the header, the library and the artifact are not of one folder\n");
        return 1;
    }
    if (slm_open(&model, slm_artifact, MODEL_ARTIFACT_BYTES) != SLM_OK) {
        return fail_open();
    }
    if ((status = slm_verify(&model)) != SLM_OK) {
        return fail("the artifact", status);
    }
    if (slm_session_bytes(&model) > sizeof session_memory) {
        return fail("MODEL_SESSION_BYTES", SLM_MEMORY);
    }
    if ((status = slm_self_test(&model, session_memory, sizeof session_memory)) != SLM_OK) {
        return fail("the self-test", status);
    }
    say("self-test: the digests hold, and the logits are the build machine's\n");
    if ((status = slm_session_init(&session, &model, session_memory, sizeof session_memory)) != SLM_OK) {
        return fail("the session", status);
    }
    return run(session);
}
