/* Opens an artifact that must be signed, and whose weights may be sealed, and runs its golden prompts:
 *
 *     trusted model.slm release.raw              signed by the key of release.raw
 *     trusted model.slm release.raw device.key   signed, and its weights in cipher for this device
 *
 * release.raw is the public key as firmware holds it: `openssl pkey -pubin -in release.pub -outform DER | tail -c 32` for
 * Ed25519, `tail -c 65` for P-256. device.key is what `slmc keygen --type device` makes. On a device both are constants or
 * come from where it protects them, and so does the counter, which is 0 here. Exit code 2: refused. Build: docs/c-api.md, with
 * --features c-api,std,ed25519,p256,chacha,aes. */
#include "slm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        fprintf(stderr, "trusted: cannot read %s\n", path);
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

static int refused(const slm_model *model, slm_status status) {
    char why[200];
    if (slm_model_error(model, why, sizeof why) == 0) {
        snprintf(why, sizeof why, "%s", slm_message(status));
    }
    fprintf(stderr, "trusted: refused: %s\n", why);
    return 2;
}

/* Opens it and runs its golden prompts; the exit code. */
static int opened(const unsigned char *artifact, size_t length, const slm_key *key, unsigned char *device) {
    static slm_model model; /* too large for the stack of a device */
    size_t needed;
    void *weights = NULL, *memory = NULL;
    slm_trust trust;
    slm_status status;
    int code = 0;
    memset(&trust, 0, sizeof trust);
    trust.keys = key;
    trust.key_count = 1;
    trust.threshold = 1;
    if (device == NULL) {
        status = slm_open_signed(&model, artifact, length, &trust);
    } else {
        slm_unsealing unsealing;
        memset(&unsealing, 0, sizeof unsealing);
        unsealing.device_key = device;
        /* The open weights lie in RAM, the rest of the artifact stays where it is. */
        needed = slm_unseal_bytes(artifact, length);
        weights = memory_of(needed);
        status = weights == NULL ? SLM_MEMORY
                                 : slm_open_sealed(&model, artifact, length, &trust, &unsealing, weights, needed);
        /* What this library derived of the key it has wiped; this copy is the program's. */
        memset(device, 0, SLM_DEVICE_KEY_BYTES);
    }
    if (status != SLM_OK) {
        code = refused(&model, status);
    } else {
        needed = slm_session_bytes(&model);
        memory = memory_of(needed);
        status = memory == NULL ? SLM_MEMORY : slm_self_test(&model, memory, needed);
        if (status != SLM_OK) {
            fprintf(stderr, "trusted: %s\n", slm_message(status));
            code = 2;
        }
    }
    free(memory);
    free(weights);
    return code;
}

int main(int count, char **arguments) {
    size_t length = 0, key_length = 0, device_length = 0;
    unsigned char *artifact, *raw, *device = NULL;
    slm_key key;
    int code = 2;
    if (count < 3 || count > 4) {
        fprintf(stderr, "usage: trusted model.slm release.raw [device.key]\n");
        return 2;
    }
    artifact = read_file(arguments[1], &length);
    raw = read_file(arguments[2], &key_length);
    if (count == 4) {
        device = read_file(arguments[3], &device_length);
    }
    if (artifact != NULL && raw != NULL && (count == 3 || device != NULL)) {
        if ((key_length != 32 && key_length != 65) || (count == 4 && device_length != SLM_DEVICE_KEY_BYTES)) {
            fprintf(stderr, "trusted: a public key has 32 or 65 bytes, a device's key %d\n", SLM_DEVICE_KEY_BYTES);
        } else {
            key.algorithm = key_length == 32 ? SLM_ED25519 : SLM_P256;
            key.bytes = raw;
            code = opened(artifact, length, &key, device);
        }
    }
    if (code == 0) {
        printf("signed by the key%s, and the logits are the build machine's\n", device == NULL ? "" : ", opened by this device");
    }
    free(device);
    free(raw);
    free(artifact);
    return code;
}
