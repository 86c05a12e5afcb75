/* Signed artifacts from C: signed MODEL.slm ED25519.key P256.key, signed by the first key in slot 1 and by the second in slot 2,
 * security_counter 7, product line "slmc test models". Ends with 0 and says how many things it looked at. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A file behind a reader. */
struct source {
    struct file *file;
    size_t reads; /* that succeed before all fail */
};

/* Hardware that says what it is told to, and counts. */
struct hardware {
    int32_t answer;
    int verified, hashed;
    size_t message_bytes;
};

static int32_t verify_signature(void *user, const slm_key *key, const slm_piece *message, size_t pieces,
                                const uint8_t *signature) {
    struct hardware *hardware = user;
    size_t n;
    hardware->verified++;
    hardware->message_bytes = 0;
    for (n = 0; n < pieces; n++) {
        hardware->message_bytes += message[n].length;
    }
    EXPECT(key->algorithm == SLM_ED25519 || key->algorithm == SLM_P256);
    EXPECT(memcmp(message[0].bytes, "DSSEv1 27 application/vnd.slmc.header 4096 ", 43) == 0 && signature != NULL);
    return hardware->answer;
}

static void broken_sha256(void *user, const slm_piece *pieces, size_t count, uint8_t *digest) {
    struct hardware *hardware = user;
    hardware->hashed++;
    EXPECT(count > 0 && pieces[0].bytes != NULL);
    memset(digest, 0, 32);
}

static int32_t read_bytes(void *user, uint64_t offset, void *buffer, size_t length) {
    struct source *source = user;
    const struct file *file = source->file;
    if (source->reads == 0 || offset > file->length || length > file->length - offset) {
        return 1;
    }
    source->reads--;
    memcpy(buffer, file->bytes + offset, length);
    return 0;
}

static void self_test(const slm_model *model) {
    size_t bytes = slm_session_bytes(model);
    unsigned char *memory = memory_of(bytes);
    EXPECT(slm_self_test(model, memory, bytes) == SLM_OK);
    free(memory);
}

static void in_memory(struct file *file, slm_trust *trust, const slm_key *keys) {
    static slm_model model;
    struct hardware hardware = {1, 0, 0, 0};
    char why[160];
    uint8_t other[16] = {1}, zeros[32] = {0};
    slm_key none = {SLM_ED25519, zeros}, unknown = {3, zeros};
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_OK);
    self_test(&model);
    EXPECT(slm_verify(&model) == SLM_OK);
    trust->threshold = 2;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_OK);
    trust->key_count = 1;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_ARGUMENT);
    trust->threshold = 1;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_OK);
    trust->key_count = 0;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_ARGUMENT);
    trust->key_count = SLM_MAX_KEYS + 1;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, NULL) == SLM_NULL);
    trust->key_count = 1;
    trust->keys = &none;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_ARGUMENT);
    EXPECT(slm_model_error(&model, why, sizeof why) > 10 && strstr(why, "all zeros") != NULL);
    trust->keys = &unknown;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_ARGUMENT);
    trust->keys = keys;
    trust->key_count = 2;
    trust->counter = 8;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_ROLLBACK);
    EXPECT(slm_model_error(&model, why, sizeof why) > 10 && strstr(why, "security_counter 7 is below 8") != NULL);
    trust->counter = 7;
    trust->model_id = other;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_MODEL_ID);
    trust->model_id = (const uint8_t *)"slmc test models";
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_OK);
    EXPECT(slm_open_signed(&model, file->bytes, file->length - 64, trust) == SLM_FORMAT);
    file->bytes[4100] ^= 1;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_LEAF);
    file->bytes[4100] ^= 1;
    file->bytes[64] ^= 1;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_SIGNATURE);
    EXPECT(slm_session_bytes(&model) == 0);
    file->bytes[64] ^= 1;
    /* The firmware's hardware verifies: 43 + 4096 bytes, for each slot. */
    trust->user = &hardware;
    trust->verify_signature = verify_signature;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_OK);
    EXPECT(hardware.verified == 2 && hardware.message_bytes == 43 + 4096);
    hardware.answer = 0;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_SIGNATURE);
    hardware.answer = -1;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_NO_VERIFIER);
    trust->verify_signature = NULL;
    trust->sha256 = broken_sha256;
    EXPECT(slm_open_signed(&model, file->bytes, file->length, trust) == SLM_KEY_UNKNOWN);
    EXPECT(hardware.hashed > 0);
    trust->sha256 = NULL;
}

static void by_leaf(struct file *file, const slm_trust *trust) {
    static slm_model model;
    size_t seen_bytes = slm_seen_bytes(file->bytes, file->length), bytes, steps = 0;
    unsigned char *seen = malloc(seen_bytes), *memory;
    slm_session *session;
    uint64_t left = 0, before;
    slm_facts facts;
    EXPECT(seen != NULL && seen_bytes > 0 && slm_seen_bytes(NULL, 0) == 0);
    EXPECT(slm_open_signed_lazily(&model, file->bytes, file->length, trust, seen, seen_bytes - 1) == SLM_MEMORY);
    EXPECT(slm_open_signed_lazily(&model, file->bytes, file->length, trust, NULL, seen_bytes) == SLM_NULL);
    EXPECT(slm_open_signed_lazily(&model, file->bytes, file->length, trust, seen, seen_bytes) == SLM_OK);
    EXPECT(slm_describe(&model, &facts) == SLM_OK && facts.vocabulary > 0);
    bytes = slm_session_bytes(&model);
    memory = memory_of(bytes);
    EXPECT(slm_session_init(&session, &model, memory, bytes) == SLM_UNCHECKED);
    EXPECT(slm_self_test(&model, memory, bytes) == SLM_UNCHECKED);
    EXPECT(slm_verify_leaves(&model, trust, seen, seen_bytes, 0, 1, NULL) == SLM_NULL);
    EXPECT(slm_verify_leaves(&model, trust, seen, seen_bytes, (uint64_t)-1, 1, &left) == SLM_ARGUMENT);
    do {
        before = left;
        EXPECT(slm_verify_leaves(&model, trust, seen, seen_bytes, steps++, 1, &left) == SLM_OK);
    } while (left > 0 && (before == 0 || left == before - 1));
    EXPECT(left == 0 && steps > 1);
    EXPECT(slm_session_init(&session, &model, memory, bytes) == SLM_OK);
    EXPECT(slm_self_test(&model, memory, bytes) == SLM_OK);
    free(memory);
    free(seen);
}

static void by_reader(struct file *file, const slm_trust *trust) {
    struct source source = {file, (size_t)-1};
    static slm_model model;
    static slm_stream stream;
    uint64_t needed = 0, device_bytes = 0;
    size_t leaf_bytes = 0;
    unsigned char page[4096], out[100], *memory, *leaf, *ram;
    EXPECT(slm_stream_describe(&stream, &device_bytes, &leaf_bytes) == SLM_NOT_OPEN);
    EXPECT(slm_stream_open(&stream, NULL, &source, page, sizeof page, trust, &needed) == SLM_NULL);
    EXPECT(slm_stream_open(&stream, read_bytes, &source, page, sizeof page, trust, &needed) == SLM_MEMORY && needed > 4096);
    memory = memory_of(needed);
    EXPECT(slm_stream_open(&stream, read_bytes, &source, memory, needed, trust, &needed) == SLM_OK);
    EXPECT(slm_stream_describe(&stream, &device_bytes, &leaf_bytes) == SLM_OK);
    EXPECT(device_bytes > 4096 && device_bytes <= file->length && leaf_bytes == 4096);
    leaf = memory_of(leaf_bytes);
    EXPECT(slm_stream_read(&stream, 1, 0, out, sizeof out, leaf, leaf_bytes) == SLM_OK);
    EXPECT(memcmp(out, file->bytes + 4096, sizeof out) == 0);
    EXPECT(slm_stream_read(&stream, 1, 0, out, sizeof out, leaf, 10) == SLM_MEMORY);
    EXPECT(slm_stream_read(&stream, 77, 0, out, sizeof out, leaf, leaf_bytes) == SLM_ARGUMENT);
    file->bytes[4096] ^= 1;
    EXPECT(slm_stream_read(&stream, 1, 0, out, sizeof out, leaf, leaf_bytes) == SLM_LEAF);
    ram = memory_of(device_bytes);
    EXPECT(slm_stream_load(&stream, &model, ram, device_bytes) == SLM_LEAF);
    file->bytes[4096] ^= 1;
    EXPECT(slm_stream_load(&stream, &model, ram, device_bytes - 1) == SLM_MEMORY);
    EXPECT(slm_stream_load(&stream, &model, ram, device_bytes) == SLM_OK);
    self_test(&model);
    source.reads = 2;
    EXPECT(slm_stream_load(&stream, &model, ram, device_bytes) == SLM_READ);
    free(ram);
    free(leaf);
    free(memory);
}

int main(int count, char **arguments) {
    struct file file, ed25519, p256;
    slm_key keys[2];
    slm_trust trust;
    if (count != 4) {
        return 3;
    }
    file = read_file(arguments[1]);
    ed25519 = read_file(arguments[2]);
    p256 = read_file(arguments[3]);
    EXPECT(ed25519.length == 32 && p256.length == 65);
    keys[0].algorithm = SLM_ED25519;
    keys[0].bytes = ed25519.bytes;
    keys[1].algorithm = SLM_P256;
    keys[1].bytes = p256.bytes;
    memset(&trust, 0, sizeof trust);
    trust.keys = keys;
    trust.key_count = 2;
    trust.threshold = 1;
    trust.counter = 7;
    in_memory(&file, &trust, keys);
    by_leaf(&file, &trust);
    by_reader(&file, &trust);
    free(file.bytes);
    free(ed25519.bytes);
    free(p256.bytes);
    printf("%d\n", looked_at);
    return 0;
}
