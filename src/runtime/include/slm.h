/* Running .slm artifacts from C. docs/c-api.md explains how to build the library, and the rules; in short:
 *
 * - All memory is the caller's; nothing is allocated and nothing has to be freed.
 * - The bytes of an artifact must stay where and as they are while its model, sessions and decoders are used. A model is
 *   read only once it is open: threads may share it. A session is used by one thread at a time.
 * - Memory for sessions and for encoding starts on 64 bytes. For null pointers, misaligned pointers and short lengths
 *   functions return a status, and read and write nothing.
 * - Every function but slm_message, slm_abi_version, slm_is_end and the ones that return sizes returns an slm_status.
 */
#ifndef SLM_H
#define SLM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Compare with slm_abi_version() where header and library could differ. */
#define SLM_ABI_VERSION 1
/* Size of an slm_model in 64-bit words. */
#define SLM_MODEL_WORDS 320
/* Alignment of memory for sessions and for encoding. */
#define SLM_MEMORY_ALIGNMENT 64
/* A token that a model does not have. */
#define SLM_NO_TOKEN 0xffffffffu
/* Most tokens of slm_opening_tokens and of slm_end_tokens. */
#define SLM_MAX_OPENING_TOKENS 16
#define SLM_MAX_END_TOKENS 64

/* Result of a function. */
typedef int32_t slm_status;
#define SLM_OK            0  /* done */
#define SLM_NULL          1  /* a pointer is null */
#define SLM_ALIGNMENT     2  /* a pointer is not aligned */
#define SLM_MEMORY        3  /* the memory is smaller than required */
#define SLM_ARGUMENT      4  /* an argument is out of range */
#define SLM_NOT_OPEN      5  /* the model was not opened, or the session not started */
#define SLM_FORMAT        6  /* not a sound artifact: slm_model_error */
#define SLM_DIGEST        7  /* a digest does not match: changed or damaged */
#define SLM_TOKEN         8  /* a token is outside the vocabulary */
#define SLM_CONTEXT       9  /* no positions are left */
#define SLM_KIND          10 /* an encoder has no steps */
#define SLM_EMPTY         11 /* there are no tokens, or no logits yet */
#define SLM_RANGE         12 /* a value of the model is out of range */
#define SLM_NO_TOKENIZER  13 /* the artifact's tokenizer is host-only */
#define SLM_UTF8          14 /* the text is not UTF-8 */
#define SLM_CAPACITY      15 /* the array is too short for the result */
#define SLM_SELF_TEST     16 /* this machine computes other logits than the build machine */
#define SLM_INTERNAL      17 /* a defect of the runtime */

/* An opened artifact; set up by slm_open only. May be copied with its bytes. */
typedef struct slm_model {
    uint64_t opaque[SLM_MODEL_WORDS];
} slm_model;

/* A running model; lies in the memory given to slm_session_init and must not be copied. */
typedef struct slm_session slm_session;

/* A text being written; set up by slm_decode_begin. */
typedef struct slm_decoder {
    const slm_model *model;
    uint32_t at_start;
} slm_decoder;

typedef struct slm_facts {
    uint32_t kind;          /* 1 decoder, 2 encoder */
    uint32_t output;        /* 1 hidden states, 2 next-token logits, 3 masked-token logits, 4 one row of label logits */
    uint32_t vocabulary;    /* tokens */
    uint32_t context;       /* positions */
    uint32_t output_width;  /* values of an output row */
    uint32_t bos;           /* first token that opens a text, or SLM_NO_TOKEN: see slm_opening_tokens */
    uint32_t eos;           /* first token that ends a text, or SLM_NO_TOKEN: see slm_is_end */
    uint32_t has_tokenizer; /* 1 where slm_encode works */
    uint64_t stack_bytes;   /* bound on the stack of a step */
} slm_facts;

typedef struct slm_sampling {
    float temperature; /* 0 selects the likeliest token; else 0.001 to 1000 */
    uint32_t top_k;    /* draw from the k likeliest only; 0 from all */
    uint32_t top_p;    /* draw from the likeliest that make up this share, in 1/65536; 65536 from all */
} slm_sampling;

/* Receives one row of output; must not use the session, and must not leave by longjmp or an exception. */
typedef void (*slm_row)(void *user, size_t position, const float *row, size_t width);

uint32_t slm_abi_version(void);

/* Message of a status, in English; never null. */
const char *slm_message(slm_status status);

/* Checks the structure of an artifact, the whole file or its device part, and opens it. */
slm_status slm_open(slm_model *model, const void *bytes, size_t length);

/* Message of the error of slm_open, written as by snprintf: truncated to the buffer, with a NUL; returns the whole
 * length. */
size_t slm_model_error(const slm_model *model, char *buffer, size_t capacity);

/* Compares every digest of the artifact: for media that are not trusted. */
slm_status slm_verify(const slm_model *model);

slm_status slm_describe(const slm_model *model, slm_facts *facts);

/* The tokens before a text, as its tokenizer adds them: none for many models, at most SLM_MAX_OPENING_TOKENS. `count`
 * is their number, also with SLM_CAPACITY, where `capacity` is too small. The text of a chat template already has them. */
slm_status slm_opening_tokens(const slm_model *model, uint32_t *tokens, size_t capacity, size_t *count);

/* The tokens that end a text, the first of them slm_facts.eos; at most SLM_MAX_END_TOKENS. */
slm_status slm_end_tokens(const slm_model *model, uint32_t *tokens, size_t capacity, size_t *count);

/* 1 where a token ends a text, else 0. */
uint32_t slm_is_end(const slm_model *model, uint32_t token);

/* Bytes of memory for a session or a self-test; 0 if the model is not open. */
size_t slm_session_bytes(const slm_model *model);

/* Starts a session without tokens in the caller's memory. */
slm_status slm_session_init(slm_session **session, const slm_model *model, void *memory, size_t length);

/* Appends tokens to a decoder's sequence. */
slm_status slm_step(slm_session *session, const uint32_t *tokens, size_t count);

/* The row after the last step; valid until the session is used again. */
slm_status slm_logits(slm_session *session, const float **logits, size_t *count);

/* Runs tokens and passes every output row to `row`: a decoder continues its sequence, an encoder reads the whole
 * sequence. */
slm_status slm_run(slm_session *session, const uint32_t *tokens, size_t count, slm_row row, void *user);

/* Clears the sequence. */
slm_status slm_reset(slm_session *session);

/* Positions read so far. */
size_t slm_positions(slm_session *session);

/* Message of the error of the session's last call, written as by slm_model_error. */
size_t slm_session_error(slm_session *session, char *buffer, size_t capacity);

/* Bytes of memory that suffice to encode any text of `length` bytes; 0 where the artifact has no tokenizer. */
size_t slm_encode_bytes(const slm_model *model, size_t length);

/* Tokens of UTF-8 text; with `specials` 1 also the special tokens around it. `count` is their number, also with
 * SLM_CAPACITY, where `capacity` is too small. With less memory than slm_encode_bytes, shorter words still work;
 * SLM_MEMORY is returned where they do not. */
slm_status slm_encode(const slm_model *model, const char *text, size_t length, uint32_t specials, void *memory,
                      size_t memory_length, uint32_t *tokens, size_t capacity, size_t *count);

/* Begins a text; `at_start` is 1 at the start of a text, 0 where it continues one. */
slm_status slm_decode_begin(slm_decoder *decoder, const slm_model *model, uint32_t at_start);

/* The bytes that a token adds; they lie in the artifact and may be a part of a character. */
slm_status slm_decode(slm_decoder *decoder, uint32_t token, const char **bytes, size_t *length);

/* Chooses a token: draw number `index` of the stream `seed`. The same on every machine. */
slm_status slm_sample(const float *logits, size_t count, const slm_sampling *sampling, uint64_t seed, uint64_t index,
                      uint32_t *token);

/* Runs the artifact's golden prompts and compares their logits with the build machine's, bit for bit. */
slm_status slm_self_test(const slm_model *model, void *memory, size_t length);

#ifdef __cplusplus
}
#endif

#endif
