/* Sealed artifacts from C: sealed MODEL.slm SIGNED.slm RELEASE.raw DEVICE.key OTHER.key STANZA. MODEL.slm is sealed for DEVICE.key
 * and signed by RELEASE.raw (Ed25519), SIGNED.slm signed and not sealed, STANZA one of OTHER.key for MODEL.slm. Ends with 0 and
 * says how many things it looked at. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A secure element that answers what it is told to, and hardware that does not open. */
struct hardware {
    int32_t answer;
    int asked;
};

static int32_t file_key(void *user, uint32_t cipher, const uint8_t *stanza, const uint8_t *salt, uint8_t *key) {
    struct hardware *hardware = user;
    hardware->asked++;
    EXPECT(cipher == SLM_CHACHA20_POLY1305 && stanza != NULL && salt != NULL);
    memset(key, 7, 16);
    return hardware->answer;
}

static int32_t decipher(void *user, uint32_t cipher, const uint8_t *key, const uint8_t *nonce, uint8_t *bytes, size_t length,
                        const uint8_t *tag) {
    struct hardware *hardware = user;
    hardware->asked++;
    EXPECT(cipher == SLM_CHACHA20_POLY1305 && key != NULL && nonce[0] == 0 && length > 0 && tag != NULL);
    bytes[0] ^= 1;
    return hardware->answer;
}

static void self_test(const slm_model *model) {
    size_t bytes = slm_session_bytes(model);
    unsigned char *memory = memory_of(bytes);
    EXPECT(slm_self_test(model, memory, bytes) == SLM_OK);
    free(memory);
}

static int all_zeros(const unsigned char *bytes, size_t length) {
    while (length > 0 && bytes[length - 1] == 0) {
        length--;
    }
    return length == 0;
}

int main(int count, char **arguments) {
    static slm_model model;
    struct file file, plain, key_bytes, device, other, stanza;
    struct hardware hardware = {0, 0};
    slm_key key;
    slm_trust trust;
    slm_unsealing unsealing;
    size_t needed;
    unsigned char *memory;
    slm_session *session;
    char why[160];
    if (count != 7) {
        return 3;
    }
    file = read_file(arguments[1]);
    plain = read_file(arguments[2]);
    key_bytes = read_file(arguments[3]);
    device = read_file(arguments[4]);
    other = read_file(arguments[5]);
    stanza = read_file(arguments[6]);
    EXPECT(key_bytes.length == 32 && device.length == SLM_DEVICE_KEY_BYTES && stanza.length == SLM_STANZA_BYTES);
    key.algorithm = SLM_ED25519;
    key.bytes = key_bytes.bytes;
    memset(&trust, 0, sizeof trust);
    trust.keys = &key;
    trust.key_count = 1;
    trust.threshold = 1;
    memset(&unsealing, 0, sizeof unsealing);
    unsealing.device_key = device.bytes;

    EXPECT(slm_unseal_bytes(NULL, 0) == 0 && slm_unseal_bytes(plain.bytes, plain.length) == 0);
    EXPECT(slm_unseal_bytes(file.bytes, 100) == 0);
    needed = slm_unseal_bytes(file.bytes, file.length);
    EXPECT(needed > 0 && needed < file.length);
    memory = memory_of(needed + 64);

    /* Signed alone it opens, and does not run. */
    EXPECT(slm_open_signed(&model, file.bytes, file.length, &trust) == SLM_OK);
    {
        size_t bytes = slm_session_bytes(&model);
        unsigned char *own = memory_of(bytes);
        EXPECT(slm_session_init(&session, &model, own, bytes) == SLM_SEALED);
        EXPECT(slm_self_test(&model, own, bytes) == SLM_SEALED);
        free(own);
    }
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, NULL, memory, needed) == SLM_NULL);
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, NULL, &unsealing, memory, needed) == SLM_NULL);
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, NULL, needed) == SLM_NULL);
    EXPECT(slm_open_sealed(NULL, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_NULL);
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed - 1) == SLM_MEMORY);
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, 0) == SLM_MEMORY);
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory + 4, needed) == SLM_ALIGNMENT);
    EXPECT(slm_open_sealed(&model, plain.bytes, plain.length, &trust, &unsealing, memory, needed) == SLM_SEALED);
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_OK);
    self_test(&model);

    /* Another device's key opens nothing but with a stanza of its own beside the file. */
    unsealing.device_key = other.bytes;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_NO_STANZA);
    EXPECT(slm_model_error(&model, why, sizeof why) > 10 && strstr(why, "slmc key-stanza") != NULL);
    EXPECT(slm_session_bytes(&model) == 0);
    unsealing.stanza = stanza.bytes;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_OK);
    self_test(&model);
    stanza.bytes[40] ^= 1;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_CIPHER);
    unsealing.stanza = NULL;
    unsealing.device_key = device.bytes;

    /* The signature comes first. */
    file.bytes[4100] ^= 1;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_LEAF);
    file.bytes[4100] ^= 1;
    trust.counter = 99;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_ROLLBACK);
    trust.counter = 0;

    /* A secure element and hardware in the place of key and ciphers. */
    unsealing.user = &hardware;
    unsealing.file_key = file_key;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_ARGUMENT);
    unsealing.device_key = NULL;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_NO_STANZA);
    hardware.answer = -1;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_CIPHER);
    hardware.answer = -2;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_NO_CIPHER);
    /* A key that is not the file's. */
    hardware.answer = 1;
    memset(memory, 0x5a, needed);
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_CIPHER);
    EXPECT(slm_model_error(&model, why, sizeof why) > 10 && strstr(why, "leaf 0") != NULL);
    EXPECT(hardware.asked > 3 && all_zeros(memory, needed / 2));
    unsealing.file_key = NULL;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_NULL);
    unsealing.device_key = device.bytes;
    unsealing.decipher = decipher;
    hardware.answer = -1;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_NO_CIPHER);
    hardware.answer = 0;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_CIPHER);
    /* Hardware that says that it opened, and did not: the golden prompts tell. */
    hardware.answer = 1;
    EXPECT(slm_open_sealed(&model, file.bytes, file.length, &trust, &unsealing, memory, needed) == SLM_OK);
    {
        size_t bytes = slm_session_bytes(&model);
        unsigned char *own = memory_of(bytes);
        EXPECT(slm_self_test(&model, own, bytes) != SLM_OK);
        free(own);
    }
    free(memory);
    free(file.bytes);
    free(plain.bytes);
    free(key_bytes.bytes);
    free(device.bytes);
    free(other.bytes);
    free(stanza.bytes);
    printf("%d\n", looked_at);
    return 0;
}
