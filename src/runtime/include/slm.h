/* Running .slm artifacts from C. docs/c-api.md explains how to build the library, and the rules; in short:
 *
 * - All memory is the caller's; nothing is allocated and nothing has to be freed.
 * - The bytes of an artifact must stay where and as they are while its model, sessions and decoders are used. A model is
 *   read only once it is open: threads may share it. A session is used by one thread at a time.
 * - Memory for sessions and for encoding starts on 64 bytes. For null pointers, misaligned pointers and short lengths
 *   functions return a status, and read and write nothing.
 * - Every function but slm_message, slm_abi_version, slm_is_end, slm_grammar_accepts, slm_grammar_complete and the ones
 *   that return sizes returns an slm_status.
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
/* Size of an slm_grammar in 64-bit words, and of an slm_grammar_state in 16-bit numbers. */
#define SLM_GRAMMAR_WORDS 32
#define SLM_GRAMMAR_STATE_NUMBERS 19
/* Size of an slm_stream in 64-bit words, and most keys of an slm_trust. */
#define SLM_STREAM_WORDS 64
#define SLM_MAX_KEYS 8
/* Algorithms of an slm_key. */
#define SLM_ED25519 1
#define SLM_P256 2
/* Ciphers of sealed artifacts, and bytes of a device's key and of a stanza. */
#define SLM_CHACHA20_POLY1305 1
#define SLM_AES_256_GCM 2
#define SLM_DEVICE_KEY_BYTES 32
#define SLM_STANZA_BYTES 48
/* Size of an slm_audit and of an slm_exchange in 64-bit words. */
#define SLM_AUDIT_WORDS 32
#define SLM_EXCHANGE_WORDS 80
/* Bytes of a record of a log, and of its secret key as it is kept over a restart. */
#define SLM_AUDIT_RECORD_BYTES 160
#define SLM_AUDIT_KEY_BYTES 100
/* Alignment of memory for sessions and for encoding. */
#define SLM_MEMORY_ALIGNMENT 64
/* A token that a model does not have. */
#define SLM_NO_TOKEN 0xffffffffu
/* Most tokens of slm_opening_tokens and of slm_end_tokens. */
#define SLM_MAX_OPENING_TOKENS 16
#define SLM_MAX_END_TOKENS 64

/* Parts of a conversation's text, for slm_chat_text and slm_chat_tokens. With a system message it is
 *     OPEN_SYSTEM system SYSTEM_TO_USER user USER_TO_ASSISTANT answer ASSISTANT_TO_USER user USER_TO_ASSISTANT ...
 * and without one
 *     OPEN_USER user USER_TO_ASSISTANT answer ...
 * and ends with USER_TO_ASSISTANT, after which the model answers. */
#define SLM_CHAT_OPEN_USER         0
#define SLM_CHAT_OPEN_SYSTEM       1
#define SLM_CHAT_SYSTEM_TO_USER    2
#define SLM_CHAT_USER_TO_ASSISTANT 3
#define SLM_CHAT_ASSISTANT_TO_USER 4
/* Who a message is of, for slm_chat_message. */
#define SLM_ROLE_SYSTEM    0
#define SLM_ROLE_USER      1
#define SLM_ROLE_ASSISTANT 2

/* Events of a log, for slm_audit_event. */
#define SLM_AUDIT_OPENED 2
#define SLM_AUDIT_UPDATE 3
#define SLM_AUDIT_NOTE   5
/* Why an output has no more tokens, and what it follows, for slm_outcome. */
#define SLM_END_UNSTATED 0
#define SLM_END_MODEL    1 /* the model ended it, or it is one label */
#define SLM_END_LENGTH   2 /* as many tokens as were asked for */
#define SLM_END_CONTEXT  3 /* no positions were left */
#define SLM_END_STOPPED  4 /* the program stopped it */
#define SLM_FOLLOWS_ARTIFACT 0 /* the artifact's grammar, where it carries one */
#define SLM_FOLLOWS_NOTHING  1 /* no grammar, whatever the artifact carries */
#define SLM_FOLLOWS_ANOTHER  2 /* a grammar that the artifact does not carry */
/* Signatures of seals, for slm_audit_seal_by. */
#define SLM_SEAL_ED25519    1
#define SLM_SEAL_ECDSA_P256 2

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
#define SLM_NO_GRAMMAR    18 /* the artifact has no grammar */
#define SLM_REFUSED       19 /* the grammar does not take the token */
#define SLM_SNAPSHOT      20 /* the snapshot is of another model, or damaged */
#define SLM_NO_DRAFT      21 /* the artifact carries no draft model */
/* Statuses of signed artifacts. */
#define SLM_SIGNATURE     22 /* not signed, or a signature does not hold */
#define SLM_KEY_UNKNOWN   23 /* not signed by the firmware's keys, or not by as many as must */
#define SLM_ROLLBACK      24 /* older than what the device has confirmed */
#define SLM_MODEL_ID      25 /* of another product line */
#define SLM_LEAF          26 /* a leaf is not what was signed: changed or damaged */
#define SLM_UNCHECKED     27 /* leaves of the weights have not been checked */
#define SLM_READ          28 /* the reader failed */
#define SLM_NO_VERIFIER   29 /* the algorithm of a key is lacking here */
/* Statuses of logs. */
#define SLM_APPEND        30 /* the record could not be appended to the log */
#define SLM_LOG           31 /* not the last record of a log, or the last that there can be */
#define SLM_SIGNER        32 /* the signer gave no signature */
#define SLM_NO_LOG_KEY    33 /* the log has no secret key */
/* Statuses of weights in slow storage. */
#define SLM_NO_PLAN       34 /* no plan for streaming, or buffers too small for its leaves */
#define SLM_INTERRUPTED   35 /* an earlier step failed in the middle: reset the session */
/* Statuses of updates. */
#define SLM_PACKAGE       40 /* not a sound package, or it makes other bytes than were signed */
#define SLM_BASE          41 /* made from another artifact than the active one */
#define SLM_SLOT          42 /* no sound slot record, or another artifact in a slot */
#define SLM_TRIAL         43 /* a trial runs where none may, or none where one must */
#define SLM_DEVICE        44 /* flash, protected storage or the package's source failed */
#define SLM_HEALTH        45 /* the caller's health check failed */
/* Statuses of sealed artifacts. */
#define SLM_SEALED        50 /* the weights are in cipher: slm_open_sealed; or are not: slm_open_signed */
#define SLM_NO_STANZA     51 /* no stanza is for this device's key */
#define SLM_CIPHER        52 /* the stanza of this device, or a leaf, was not closed with the key */
#define SLM_NO_CIPHER     53 /* the cipher is lacking here */

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
    uint32_t output;        /* 1 hidden states, 2 next-token logits, 3 masked-token logits, 4 one row of label logits,
                               5 one row, the embedding of the text: see slm_embedding_describe, 13 logits of labels for every
                               token, 14 for every token two scores: an answer starts there, it ends there */
    uint32_t vocabulary;    /* tokens */
    uint32_t context;       /* positions */
    uint32_t output_width;  /* values of an output row */
    uint32_t bos;           /* first token that opens a text, or SLM_NO_TOKEN: see slm_opening_tokens */
    uint32_t eos;           /* first token that ends a text, or SLM_NO_TOKEN: see slm_is_end */
    uint32_t has_tokenizer; /* 1 where slm_encode works */
    uint64_t stack_bytes;   /* bound on the stack of a step */
} slm_facts;

/* Pooling of slm_embedding_facts. */
#define SLM_POOLING_NONE    0 /* slm_run hands out the hidden state of every token */
#define SLM_POOLING_FIRST   1 /* the first token's */
#define SLM_POOLING_MEAN    2
#define SLM_POOLING_MAXIMUM 3 /* the largest of each column */
#define SLM_POOLING_LAST    4 /* the last token's */

typedef struct slm_embedding_facts {
    uint32_t pooling;    /* SLM_POOLING_...; with all but NONE slm_run hands out one row */
    uint32_t normalized; /* 1 where that row has length one */
} slm_embedding_facts;

typedef struct slm_chat_facts {
    uint32_t parts;      /* 5, or 0 where the artifact has no chat frame: no template, or one that is not a fixed frame */
    uint32_t has_tokens; /* 1 where slm_chat_tokens works */
    uint32_t has_system; /* 1 where the template takes a system message */
} slm_chat_facts;

typedef struct slm_sampling {
    float temperature; /* 0 selects the likeliest token; else 0.001 to 1000 */
    uint32_t top_k;    /* draw from the k likeliest only; 0 from all */
    uint32_t top_p;    /* draw from the likeliest that make up this share, in 1/65536; 65536 from all */
} slm_sampling;

/* All parameters of a choice; slm_sampling is the first three. */
typedef struct slm_choice {
    float temperature;        /* 0 selects the likeliest token; else 0.001 to 1000 */
    uint32_t top_k;           /* draw from the k likeliest only; 0 from all */
    uint32_t top_p;           /* draw from the likeliest that make up this share, in 1/65536; 65536 from all */
    uint32_t min_p;           /* draw from tokens that are at least this share as likely as the likeliest, in 1/65536; 0 from
                                 all */
    float repetition_penalty; /* divides positive logits of tokens seen, multiplies negative ones; 0.01 to 100, 1: none */
} slm_choice;

/* A grammar that outputs follow; set up by slm_grammar_open only. Only read once it is open. */
typedef struct slm_grammar {
    uint64_t opaque[SLM_GRAMMAR_WORDS];
} slm_grammar;

/* A place in a text that follows a grammar; set up by slm_grammar_start, may be copied to come back to it. */
typedef struct slm_grammar_state {
    uint16_t opaque[SLM_GRAMMAR_STATE_NUMBERS];
} slm_grammar_state;

/* A log being written, with the library's feature `audit`; set up by slm_audit_start only. Must not be copied. */
typedef struct slm_audit {
    uint64_t opaque[SLM_AUDIT_WORDS];
} slm_audit;

/* A question and its answer; set up by slm_exchange_begin only. */
typedef struct slm_exchange {
    uint64_t opaque[SLM_EXCHANGE_WORDS];
} slm_exchange;

/* How an inference ended. */
typedef struct slm_outcome {
    uint32_t status;  /* 0, or the number of what went wrong, at most 255: an slm_status */
    uint32_t end;     /* SLM_END_... */
    uint32_t follows; /* SLM_FOLLOWS_... */
} slm_outcome;

/* Appends SLM_AUDIT_RECORD_BYTES bytes to the log; returns 0 once they are there. Must not use the slm_audit, and must not
 * leave by longjmp or an exception. */
typedef int32_t (*slm_append)(void *user, const uint8_t *record);

/* Writes the 64 bytes of a message's signature; returns 0 where it did. Of ECDSA r and s, big-endian, over the message's
 * SHA-256. */
typedef int32_t (*slm_sign)(void *user, const uint8_t *message, size_t length, uint8_t *signature);

/* Receives one row of output; must not use the session, and must not leave by longjmp or an exception. */
typedef void (*slm_row)(void *user, size_t position, const float *row, size_t width);

/* Chooses the token after some logits; SLM_NO_TOKEN ends the sequence. Must not use the session, and must not leave by
 * longjmp or an exception. */
typedef uint32_t (*slm_next)(void *user, const float *logits, size_t count);

/* A public key of the firmware: 32 bytes of SLM_ED25519, or the 65 of an uncompressed point of SLM_P256 (4, x, y). */
typedef struct slm_key {
    uint32_t algorithm;
    const uint8_t *bytes;
} slm_key;

/* Bytes that follow those of the piece before. */
typedef struct slm_piece {
    const uint8_t *bytes;
    size_t length;
} slm_piece;

/* Whether a signature of 64 bytes (Ed25519, or r and s big-endian) is a key's over a message: 1 it is, 0 it is not, -1 the
 * algorithm is lacking. Of the many forms of one signature only one arrives here. */
typedef int32_t (*slm_verify_signature)(void *user, const slm_key *key, const slm_piece *message, size_t pieces,
                                        const uint8_t *signature);

/* Writes the SHA-256 of some pieces, 32 bytes; zeros where the hardware fails, which are compared and refused. */
typedef void (*slm_sha256)(void *user, const slm_piece *pieces, size_t count, uint8_t *digest);

/* Fills a buffer with the bytes of a file from `offset`; 0 where it did. */
typedef int32_t (*slm_read)(void *user, uint64_t offset, void *buffer, size_t length);

/* What a device trusts; used during the call alone. */
typedef struct slm_trust {
    const slm_key *keys;       /* of the firmware, at most SLM_MAX_KEYS */
    size_t key_count;
    uint32_t threshold;        /* different keys of these that must have signed, 1 or 2 */
    uint32_t reserved;         /* 0 */
    uint64_t counter;          /* the device's: files with a lower security_counter are refused */
    const uint8_t *model_id;   /* 16 bytes of the product line; null: any */
    slm_verify_signature verify_signature; /* hardware; null: the library's features ed25519 and p256 */
    slm_sha256 sha256;         /* hardware; null: the library */
    void *user;                /* passed to both */
} slm_trust;

/* A signed artifact behind a reader; set up by slm_stream_open only. */
typedef struct slm_stream {
    uint64_t opaque[SLM_STREAM_WORDS];
} slm_stream;

/* Writes the key of a file, 16 bytes, from a stanza of SLM_STANZA_BYTES and a salt of 16 bytes: 1 it did; 0 the stanza is of
 * another device; -1 it names this device's key and was not made by it; -2 the cipher is lacking. docs/seal.md has the
 * construction. */
typedef int32_t (*slm_file_key)(void *user, uint32_t cipher, const uint8_t *stanza, const uint8_t *salt, uint8_t *file_key);

/* Opens bytes in their place by a key of 32 bytes, a nonce of 12 and a tag of 16, without further data: 1 it did; 0 the tag is
 * not theirs; -1 the cipher is lacking. */
typedef int32_t (*slm_decipher)(void *user, uint32_t cipher, const uint8_t *key, const uint8_t *nonce, uint8_t *bytes,
                                size_t length, const uint8_t *tag);

/* What opens weights in cipher; used during the call alone. */
typedef struct slm_unsealing {
    const uint8_t *device_key; /* SLM_DEVICE_KEY_BYTES; null where file_key has it */
    slm_file_key file_key;     /* a secure element in the place of device_key; else null */
    slm_decipher decipher;     /* hardware; null: the library's features chacha and aes */
    const uint8_t *stanza;     /* of `slmc key-stanza`, beside the file; null: the file's own */
    void *user;                /* passed to both functions */
} slm_unsealing;

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

/* The functions of signed artifacts need the library's feature `signed`, or `ed25519` or `p256`, which have it in them.
 *
 * slm_open_signed opens an artifact in memory, whole or its device part, and checks every byte of the device part: signature,
 * product line, counter, then all leaves. Memory that changes afterwards is not seen; see slm_stream_open for such. */
slm_status slm_open_signed(slm_model *model, const void *bytes, size_t length, const slm_trust *trust);

/* The same for all but the weights. `seen` has slm_seen_bytes and says which of their leaves were checked: sessions begin
 * (SLM_UNCHECKED) when slm_verify_leaves has checked all, in any order and number at a time, each once. `left` is how many
 * remain; 0 for `first` is the first leaf of the weights, and a `count` past the last is cut. */
slm_status slm_open_signed_lazily(slm_model *model, const void *bytes, size_t length, const slm_trust *trust, uint8_t *seen,
                                  size_t seen_bytes);
size_t slm_seen_bytes(const void *bytes, size_t length);
slm_status slm_verify_leaves(slm_model *model, const slm_trust *trust, uint8_t *seen, size_t seen_bytes, uint64_t first,
                             uint64_t count, uint64_t *left);

/* A signed artifact behind a reader that need not be trusted, neither now nor later. The header page and the list of digests
 * stay in `memory`; with SLM_MEMORY `needed` says how much that takes. Nothing may use `memory` otherwise while the stream is
 * used. */
slm_status slm_stream_open(slm_stream *stream, slm_read read, void *reader, void *memory, size_t length,
                           const slm_trust *trust, uint64_t *needed);

/* Length of the device part, and of the largest leaf. */
slm_status slm_stream_describe(const slm_stream *stream, uint64_t *device_bytes, size_t *leaf_bytes);

/* Reads bytes of a section (docs/format.md has the numbers; 4 are the weights), checks every leaf that they are in, each
 * time. `buffer` has the bytes of a leaf, for leaves that `out` does not take whole. Where it fails `out` is not to be
 * used. */
slm_status slm_stream_read(const slm_stream *stream, uint32_t section, uint64_t offset, void *out, size_t length, void *buffer,
                           size_t buffer_bytes);

/* Reads the device part into memory of its length, which starts on 64 bytes, every leaf checked there, and opens it. */
slm_status slm_stream_load(const slm_stream *stream, slm_model *model, void *memory, size_t length);

/* The functions of sealed artifacts need the library's feature `seal`, or `chacha` or `aes`, which have it in them.
 *
 * slm_open_sealed is slm_open_signed for an artifact whose weights are in cipher: it checks every byte, and opens the weights
 * by the device's key in `memory`, which starts on 64 bytes, has slm_unseal_bytes and stays as it is while the model is used.
 * Where it fails `memory` holds zeros or what it held. */
size_t slm_unseal_bytes(const void *bytes, size_t length);
slm_status slm_open_sealed(slm_model *model, const void *bytes, size_t length, const slm_trust *trust,
                           const slm_unsealing *unsealing, void *memory, size_t memory_length);

slm_status slm_describe(const slm_model *model, slm_facts *facts);

/* How hidden states become the embedding of a text: as the checkpoint says, by modules.json and the files that it names. */
slm_status slm_embedding_describe(const slm_model *model, slm_embedding_facts *facts);

/* The tokens before a text, as its tokenizer adds them: none for many models, at most SLM_MAX_OPENING_TOKENS. `count`
 * is their number, also with SLM_CAPACITY, where `capacity` is too small. The text of a chat template already has them. */
slm_status slm_opening_tokens(const slm_model *model, uint32_t *tokens, size_t capacity, size_t *count);

/* The tokens that end a text, the first of them slm_facts.eos; at most SLM_MAX_END_TOKENS. */
slm_status slm_end_tokens(const slm_model *model, uint32_t *tokens, size_t capacity, size_t *count);

/* 1 where a token ends a text, else 0. */
uint32_t slm_is_end(const slm_model *model, uint32_t token);

/* Whether a program can make the prompt of a conversation; `slmc inspect` says why it cannot. */
slm_status slm_chat_describe(const slm_model *model, slm_chat_facts *facts);

/* The text of a part; it lies in the artifact and does not end with NUL. SLM_ARGUMENT where the frame has no such part. */
slm_status slm_chat_text(const slm_model *model, uint32_t part, const char **text, size_t *length);

/* The tokens of a part. They and the tokens of the messages, each encoded by itself, are those of the whole text, where no
 * message begins or ends with white space. SLM_EMPTY where the tokens of this model reach over the edges of messages:
 * encode the whole text then. */
slm_status slm_chat_tokens(const slm_model *model, uint32_t part, uint32_t *tokens, size_t capacity, size_t *count);

/* Makes a message's UTF-8 text what the template writes of it: without the white space around it, where the template
 * removes that. The text is not changed, the pointer and the length may be. */
slm_status slm_chat_message(const slm_model *model, uint32_t role, const char **text, size_t *length);

/* Bytes of memory for a session or a self-test; 0 if the model is not open. */
size_t slm_session_bytes(const slm_model *model);

/* Starts a session without tokens in the caller's memory. */
slm_status slm_session_init(slm_session **session, const slm_model *model, void *memory, size_t length);

/* The same for a session that computes the logits of `rows` positions together and can take them back: slm_confirm takes
 * rows - 1 drafts at once. */
size_t slm_session_bytes_for(const slm_model *model, size_t rows);
slm_status slm_session_init_rows(slm_session **session, const slm_model *model, void *memory, size_t length,
                                 size_t rows);

/* Appends tokens to a decoder's sequence. */
slm_status slm_step(slm_session *session, const uint32_t *tokens, size_t count);

/* As slm_step, where only the logits of a set of tokens are needed, such as slm_grammar_allowed fills: those are the same,
 * and logits that were not computed are minus infinity. */
slm_status slm_step_allowed(slm_session *session, const uint32_t *tokens, size_t count, const uint32_t *allowed,
                            size_t words);

/* The row after the last step; valid until the session is used again. */
slm_status slm_logits(slm_session *session, const float **logits, size_t *count);

/* Runs tokens and passes every output row to `row`: a decoder continues its sequence, an encoder and every
 * classifier start over and read the whole sequence. Label logits and embeddings are one row. */
slm_status slm_run(slm_session *session, const uint32_t *tokens, size_t count, slm_row row, void *user);

/* Clears the sequence. */
slm_status slm_reset(slm_session *session);

/* Positions read so far. */
size_t slm_positions(slm_session *session);

/* Reads `token` and drafts of what comes after it, as many as rows and context allow. `next` chooses after the token, and
 * after every draft that it chose; the other drafts are taken back. `confirmed` is the number of drafts that were chosen. The
 * tokens are those of reading one at a time. */
slm_status slm_confirm(slm_session *session, uint32_t token, const uint32_t *drafts, size_t count, slm_next next,
                       void *user, size_t *confirmed);

/* Drafts, `count` of at most `capacity`: what followed the last tokens of the sequence where they stood before. */
slm_status slm_draft_repeats(const uint32_t *sequence, size_t length, uint32_t *drafts, size_t capacity, size_t *count);

/* Drafts: what most often follows the last tokens, by the artifact's table; none where it has no table. */
slm_status slm_draft_continuations(const slm_model *model, const uint32_t *sequence, size_t length, uint32_t *drafts,
                                   size_t capacity, size_t *count);

/* Opens the draft model that the artifact carries, for a session of its own. */
slm_status slm_draft_model(const slm_model *model, slm_model *draft);

/* Marks the end of the sequence: slm_truncate can go back to it as long as no more than the session's rows follow. Models
 * without short convolutions need no mark. */
slm_status slm_mark(slm_session *session);

/* Shortens the sequence to its first `positions`; SLM_ARGUMENT where what came before is no longer kept. */
slm_status slm_truncate(slm_session *session, size_t positions);

/* Bytes of a snapshot of the sequence; slm_save writes one, slm_restore takes it up in place of the sequence. SLM_SNAPSHOT
 * where it is of another artifact or damaged: the sequence is empty then. slm_save gives SLM_INTERRUPTED after a step that failed
 * in the middle of the sequence. */
size_t slm_snapshot_bytes(slm_session *session);
slm_status slm_save(slm_session *session, void *snapshot, size_t length);
slm_status slm_restore(slm_session *session, const void *snapshot, size_t length);

/* Takes up what the artifact's sequences begin with, of `slmc compile --prefix`; `positions` is 0 where there is no such. */
slm_status slm_restore_prefix(slm_session *session, size_t *positions);

/* The tokens of that. */
slm_status slm_prefix_tokens(const slm_model *model, uint32_t *tokens, size_t capacity, size_t *count);

/* Message of the error of the session's last call, written as by slm_model_error. */
size_t slm_session_error(slm_session *session, char *buffer, size_t capacity);

/* Bytes of memory that suffice to encode any text of `length` bytes; 0 where the artifact has no tokenizer. */
size_t slm_encode_bytes(const slm_model *model, size_t length);

/* Tokens of UTF-8 text; with `specials` 1 also the special tokens around it. `count` is their number, also with
 * SLM_CAPACITY, where `capacity` is too small. With less memory than slm_encode_bytes, shorter words still work;
 * SLM_MEMORY is returned where they do not. */
slm_status slm_encode(const slm_model *model, const char *text, size_t length, uint32_t specials, void *memory,
                      size_t memory_length, uint32_t *tokens, size_t capacity, size_t *count);

/* Begins a text; `at_start` is 1 at the start of a text, 0 where it continues one, or follows a grammar, which has every byte. */
slm_status slm_decode_begin(slm_decoder *decoder, const slm_model *model, uint32_t at_start);

/* The bytes that a token adds; they lie in the artifact and may be a part of a character. */
slm_status slm_decode(slm_decoder *decoder, uint32_t token, const char **bytes, size_t *length);

/* Chooses a token: draw number `index` of the stream `seed`. The same on every machine. */
slm_status slm_sample(const float *logits, size_t count, const slm_sampling *sampling, uint64_t seed, uint64_t index,
                      uint32_t *token);

/* How the model's makers have tokens chosen (generation_config.json): the likeliest one where they say nothing. `slmc
 * generate` begins with these too. */
slm_status slm_default_choice(const slm_model *model, slm_choice *choice);

/* Chooses a token as slm_sample does, by all parameters. `seen` is the set of the sequence's tokens, prompt included, that
 * the program keeps: token t is bit t % 32 of word t / 32, and there are (count + 31) / 32 words. It is not read, and may be
 * null, where repetition_penalty is 1. */
slm_status slm_choose(const float *logits, size_t count, const slm_choice *choice, const uint32_t *seen, uint64_t seed,
                      uint64_t index, uint32_t *token);

/* Chooses as slm_choose does among the tokens of the set `allowed`, as if the other logits were not there. SLM_EMPTY where
 * it has no token. `index` counts draws: tokens of slm_grammar_forced take none. */
slm_status slm_choose_among(const float *logits, size_t count, const slm_choice *choice, const uint32_t *seen,
                            const uint32_t *allowed, uint64_t seed, uint64_t index, uint32_t *token);

/* Opens the grammar of the artifact, `section` null, or one of `length` bytes that `slmc` made for this model. */
slm_status slm_grammar_open(slm_grammar *grammar, const slm_model *model, const void *section, size_t length);

/* Words of a set of tokens: token t is bit t % 32 of word t / 32. 0 if the grammar is not open. */
size_t slm_grammar_words(const slm_grammar *grammar);

/* The start of a text. */
slm_status slm_grammar_start(const slm_grammar *grammar, slm_grammar_state *state);

/* Fills the set of the tokens that may come next, tokens that end a text included where it may end; `count` is their
 * number. */
slm_status slm_grammar_allowed(const slm_grammar *grammar, const slm_grammar_state *state, uint32_t *allowed,
                               size_t words, size_t *count);

/* Goes on by a token. SLM_REFUSED where the grammar does not take it; the state stays then. */
slm_status slm_grammar_advance(const slm_grammar *grammar, slm_grammar_state *state, uint32_t token);

/* Goes on by the tokens without an alternative, at most `capacity`, and writes them; `count` is their number. */
slm_status slm_grammar_forced(const slm_grammar *grammar, slm_grammar_state *state, uint32_t *tokens, size_t capacity,
                              size_t *count);

/* 1 where the text may end, else 0. */
uint32_t slm_grammar_accepts(const slm_grammar *grammar, const slm_grammar_state *state);

/* 1 where the text may end and nothing else can follow, else 0. */
uint32_t slm_grammar_complete(const slm_grammar *grammar, const slm_grammar_state *state);

/* Of a classifier, after slm_run. These functions are in libraries with the feature `exits`.
 *
 * A classifier with exit heads stops at the first of them whose logits are clear enough by the artifact's thresholds, which are
 * compared as integers; its row is that head's. slm_exit_layers is the number of layers that were computed.
 *
 * slm_confidence is the probability of the likeliest label at the temperature that the artifact has for that head: a program that
 * asks elsewhere below some value answers what is left as accurately as `slmc eval --route-below` says. Both are 0 before the
 * first text and after slm_reset. */
uint32_t slm_exit_layers(slm_session *session);
float slm_confidence(slm_session *session);

/* 1: by the thresholds, as every session begins. 0: every layer of each text is computed. */
slm_status slm_set_leaving(slm_session *session, uint32_t by_threshold);

/* Runs the artifact's golden prompts and compares their logits with the build machine's, bit for bit. */
slm_status slm_self_test(const slm_model *model, void *memory, size_t length);

/* The audit log: records that are chained, and seals. docs/audit.md says what it shows, and what it does not. These functions
 * are in libraries with the feature `audit`.
 *
 * Starts a log, or goes on after the `last` of its records, where that is not null. With `root`, 32 secret bytes that are
 * wiped, digests are keyed and slm_audit_seal works; after a restart `saved_key` is what slm_audit_save_key gave, and is to
 * be saved again at once. Both null: no key. */
slm_status slm_audit_start(slm_audit *audit, const uint8_t *last, uint8_t *root, const uint8_t *saved_key);

/* The key over a restart, SLM_AUDIT_KEY_BYTES bytes: keep it after every seal where nobody else reads it, in the place of
 * the one before. */
slm_status slm_audit_save_key(slm_audit *audit, uint8_t *saved_key);

/* 32 bytes that stand for the log as it is, and the number of its records: kept elsewhere they show that nothing is cut. */
slm_status slm_audit_head(slm_audit *audit, uint8_t *head, uint64_t *records);

/* Begins a question with how tokens are chosen; encoders take temperature 0 and seed 0. */
slm_status slm_exchange_begin(slm_exchange *exchange, slm_audit *audit, const slm_choice *choice, uint64_t seed);

/* Adds tokens that the model read; tokens that it answered, without the one that ends the text, or the number of a label. */
slm_status slm_exchange_input(slm_exchange *exchange, const uint32_t *tokens, size_t count);
slm_status slm_exchange_output(slm_exchange *exchange, const uint32_t *tokens, size_t count);

/* Records the exchange, which is over then. `time` should never run backwards; 0 where it is not known. */
slm_status slm_audit_inference(slm_audit *audit, slm_exchange *exchange, const slm_model *model,
                               const slm_outcome *outcome, uint64_t time, slm_append append, void *user);

/* Records an event with a status of at most 255. `model` may be null; `detail` are 32 bytes or null: of an update the
 * device_digest of the model before, of a note the digest of whatever is kept elsewhere. */
slm_status slm_audit_event(slm_audit *audit, uint32_t kind, uint32_t status, const slm_model *model,
                           const uint8_t *detail, uint64_t time, slm_append append, void *user);

/* Seals the log by its secret key, which moves on. */
slm_status slm_audit_seal(slm_audit *audit, uint64_t time, slm_append append, void *user);

/* Seals the log by a signature, such as of a secure element; `key_id` is the SHA-256 of the public key's
 * SubjectPublicKeyInfo in DER, 32 bytes. */
slm_status slm_audit_seal_by(slm_audit *audit, uint32_t algorithm, const uint8_t *key_id, slm_sign sign, void *signer,
                             uint64_t time, slm_append append, void *user);
/* Weights in slow storage, which cannot be addressed: a card, serial flash, a server. docs/streaming.md; these functions need the
 * library's feature `streaming`, and artifacts of `slmc compile --resident`. */
#define SLM_STREAMED_WORDS 384
#define SLM_READ_FAILED -1
#define SLM_READ_LATE -2

/* How the file is read. `read` fills `into` from an offset of the file and returns how many bytes there were, SLM_READ_FAILED or
 * SLM_READ_LATE. Where reading goes on by itself, by DMA, `begin` starts the same for one of the buffers and returns 0, and
 * `finish` waits for it; at most one read is begun at a time, and nothing uses its buffer meanwhile. Both may be null. Buffers
 * start on 64 bytes. */
typedef struct slm_storage {
    int64_t (*read)(void *user, uint64_t offset, void *into, size_t length);
    int32_t (*begin)(void *user, uint64_t offset, void *into, size_t length);
    int64_t (*finish)(void *user);
    void *user;
    void *buffers[2];
    size_t buffer_bytes; /* of each */
} slm_storage;

/* Memory that a streamed artifact needs beside its sessions. */
typedef struct slm_streamed_sizes {
    uint64_t memory_bytes; /* for slm_streamed_open */
    uint64_t buffer_bytes; /* each of the two buffers */
} slm_streamed_sizes;

/* What a session has read. */
typedef struct slm_traffic {
    uint64_t bytes;
    uint64_t reads;
    uint64_t ahead;        /* of the reads, begun ahead and used */
    uint64_t missed_bytes; /* begun ahead and not needed next */
} slm_traffic;

/* A streamed artifact; set up by slm_streamed_open only. */
typedef struct slm_streamed {
    uint64_t opaque[SLM_STREAMED_WORDS];
} slm_streamed;

/* The memory that an artifact needs, by its header page, which is read into `page` of 4096 bytes. The storage's buffers may be
 * null here. */
slm_status slm_streamed_needs(const slm_storage *storage, void *page, slm_streamed_sizes *needed);

/* Reads what stays in memory, which starts on 64 bytes, and checks it; `model` is then open for everything but slm_session_init.
 * `trust` is an slm_trust, or null where the file need not be signed. `check` 1: the digest of each tensor is compared too,
 * whenever it has been read as a whole; else 0. Leaves of a signed file always are. */
slm_status slm_streamed_open(slm_streamed *streamed, slm_model *model, const slm_storage *storage, void *memory, size_t length,
                             const void *trust, uint32_t check);

/* Message of the error of slm_streamed_open, as slm_model_error. */
size_t slm_streamed_error(const slm_streamed *streamed, char *buffer, size_t capacity);

/* Reads the whole file once and compares every digest, through the buffers: not between the steps of a session, or after
 * slm_streamed_settle. */
slm_status slm_streamed_verify(slm_streamed *streamed);

/* Starts a session, in memory of slm_session_bytes_for; `rows` as there, 1 for one token after another. A streamed artifact has
 * one session at a time. SLM_READ, SLM_LEAF or SLM_DIGEST of a step: the session is to be reset before it goes on. */
slm_status slm_streamed_init(slm_session **session, slm_streamed *streamed, void *memory, size_t length, size_t rows);

/* slm_self_test of a streamed artifact; the buffers serve it as they serve slm_streamed_verify. */
slm_status slm_streamed_self_test(slm_streamed *streamed, void *memory, size_t length);

/* What a session has read so far. */
slm_status slm_streamed_traffic(slm_session *session, slm_traffic *traffic);

/* Waits until nothing is being read ahead: before the buffers serve something else, or the session's memory does. */
slm_status slm_streamed_settle(slm_session *session);

/* Slots of an slm_update_device. */
#define SLM_SLOT_A 0
#define SLM_SLOT_B 1
/* Bytes of a slot record, and of a header page. */
#define SLM_RECORD_BYTES 64
#define SLM_PAGE_BYTES 4096

/* What a device lends an update; docs/update.md says what each must keep. All functions answer 0 where they did what they were
 * asked, and are called with places within a slot or a record. */
typedef struct slm_update_device {
    uint64_t slot_bytes;        /* of each of two slots, a multiple of the erase block */
    uint32_t erase_block_bytes; /* a power of two, at least 64 */
    uint32_t reserved;          /* 0 */
    int32_t (*read)(void *user, uint32_t slot, uint64_t offset, void *into, size_t length);
    int32_t (*erase)(void *user, uint32_t slot, uint64_t offset); /* the block that begins there */
    int32_t (*write)(void *user, uint32_t slot, uint64_t offset, const void *bytes, size_t length); /* multiples of 64 */
    int32_t (*read_record)(void *user, uint32_t copy, void *record); /* copy 0 or 1; SLM_RECORD_BYTES; a copy may fail */
    int32_t (*write_record)(void *user, uint32_t copy, const void *record);
    int32_t (*read_counter)(void *user, uint64_t *counter);
    int32_t (*advance_counter)(void *user, uint64_t to); /* at once or not at all */
    void *user;                 /* passed to all of them */
} slm_update_device;

/* A package, wherever it lies. */
typedef struct slm_package {
    uint64_t bytes;
    slm_read read;
    void *user;
} slm_package;

/* What a boot runs. */
typedef struct slm_boot {
    uint32_t slot;
    uint32_t trial; /* 1: it waits for slm_update_confirm */
} slm_boot;

/* The functions of updates need the library's feature `update`.
 *
 * Writes a device's first slot record: the slot that the opened artifact lies in. */
slm_status slm_update_install(const slm_update_device *device, uint32_t slot, const slm_model *model);

/* Bytes of memory that a package takes; 0 where its head is not sound. */
size_t slm_update_bytes(const slm_package *package);

/* Makes the package's artifact in the slot that is not active, to be tried from the next boot on. After an error or a loss of
 * power the same call goes on where it ended. `trust->counter` is not used: the device's counter is. */
slm_status slm_update_apply(const slm_update_device *device, const slm_package *package, const slm_trust *trust,
                            void *memory, size_t length);

/* Chooses the slot to run, and takes one of a trial's three tries. `page` is memory of SLM_PAGE_BYTES. Open what lies in the slot
 * by slm_open_signed; where that fails for a trial, slm_update_reject it and boot again. */
slm_status slm_update_boot(const slm_update_device *device, const slm_trust *trust, void *page, slm_boot *boot);

/* Confirms the trial that runs, opened as `model`: runs its golden prompts in the memory of a session, asks `healthy` (1: it is),
 * makes its slot the active one and raises the counter. Where it fails nothing has changed, unless the slot was made the active one
 * and advance_counter failed: the same call, or the next boot, raises the counter then. */
slm_status slm_update_confirm(const slm_update_device *device, const slm_model *model, void *memory, size_t length,
                              uint32_t (*healthy)(void *user), void *user);

/* Ends a trial: the next boot runs the active slot. */
slm_status slm_update_reject(const slm_update_device *device);

#ifdef __cplusplus
}
#endif

#endif
