/* Updates from C, on a device in memory: update OLD.slm NEW.slmu APPLIED.slm RELEASE.raw. OLD.slm (security_counter 1) is what the
 * device runs, NEW.slmu makes a newer artifact of it (security_counter 2), APPLIED.slm is what `slmc update apply` made, RELEASE.raw the
 * Ed25519 key of both. Ends with 0 and says how many things it looked at. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096u

/* Two slots of flash, two records, a counter; `writes` of flash and records succeed before all fail. */
struct board {
    unsigned char *slots[2];
    uint64_t slot_bytes;
    unsigned char records[2][SLM_RECORD_BYTES];
    uint64_t counter;
    long writes;
};

static int32_t read_slot(void *user, uint32_t slot, uint64_t offset, void *into, size_t length) {
    struct board *board = user;
    EXPECT(slot < 2 && offset <= board->slot_bytes && length <= board->slot_bytes - offset);
    memcpy(into, board->slots[slot] + offset, length);
    return 0;
}

static int32_t erase_block(void *user, uint32_t slot, uint64_t offset) {
    struct board *board = user;
    EXPECT(slot == SLM_SLOT_B && offset % BLOCK == 0 && offset < board->slot_bytes);
    memset(board->slots[slot] + offset, 0xff, BLOCK);
    return 0;
}

static int32_t write_slot(void *user, uint32_t slot, uint64_t offset, const void *bytes, size_t length) {
    struct board *board = user;
    size_t n;
    EXPECT(slot == SLM_SLOT_B && offset % 64 == 0 && length % 64 == 0 && length <= board->slot_bytes - offset);
    if (board->writes-- <= 0) {
        return 1;
    }
    for (n = 0; n < length; n++) {
        if (board->slots[slot][offset + n] != 0xff) {
            EXPECT(!"written twice without being erased");
        }
    }
    memcpy(board->slots[slot] + offset, bytes, length);
    return 0;
}

static int32_t read_record(void *user, uint32_t copy, void *record) {
    struct board *board = user;
    memcpy(record, board->records[copy], SLM_RECORD_BYTES);
    return 0;
}

static int32_t write_record(void *user, uint32_t copy, const void *record) {
    struct board *board = user;
    if (board->writes-- <= 0) {
        return 1;
    }
    memcpy(board->records[copy], record, SLM_RECORD_BYTES);
    return 0;
}

static int32_t read_counter(void *user, uint64_t *counter) {
    *counter = ((struct board *)user)->counter;
    return 0;
}

static int32_t advance_counter(void *user, uint64_t to) {
    struct board *board = user;
    EXPECT(to > board->counter);
    board->counter = to;
    return 0;
}

static int32_t read_package(void *user, uint64_t offset, void *buffer, size_t length) {
    struct file *file = user;
    if (offset > file->length || length > file->length - offset) {
        return 1;
    }
    memcpy(buffer, file->bytes + offset, length);
    return 0;
}

static uint32_t answer(void *user) {
    return *(uint32_t *)user;
}

int main(int count, char **arguments) {
    static slm_model model;
    struct file old, update, applied, key_bytes;
    struct board board;
    slm_update_device device;
    slm_package package;
    slm_key key;
    slm_trust trust, stranger;
    slm_boot boot = {9, 9};
    uint8_t zeros_but_one[32] = {1}, *page = memory_of(SLM_PAGE_BYTES);
    slm_key other = {SLM_ED25519, zeros_but_one};
    unsigned char *memory, *session;
    size_t needed, session_bytes;
    uint32_t healthy = 0;
    if (count != 5) {
        return 3;
    }
    old = read_file(arguments[1]);
    update = read_file(arguments[2]);
    applied = read_file(arguments[3]);
    key_bytes = read_file(arguments[4]);
    memset(&board, 0, sizeof board);
    board.slot_bytes = ((old.length > applied.length ? old.length : applied.length) + BLOCK - 1) / BLOCK * BLOCK;
    board.slots[0] = memory_of(board.slot_bytes);
    board.slots[1] = memory_of(board.slot_bytes);
    memset(board.slots[0], 0xff, board.slot_bytes);
    memset(board.slots[1], 0x5a, board.slot_bytes);
    memcpy(board.slots[0], old.bytes, old.length);
    board.counter = 1;
    board.writes = 1000000;
    memset(&device, 0, sizeof device);
    device.slot_bytes = board.slot_bytes;
    device.erase_block_bytes = BLOCK;
    device.read = read_slot;
    device.erase = erase_block;
    device.write = write_slot;
    device.read_record = read_record;
    device.write_record = write_record;
    device.read_counter = read_counter;
    device.advance_counter = advance_counter;
    device.user = &board;
    package.bytes = update.length;
    package.read = read_package;
    package.user = &update;
    key.algorithm = SLM_ED25519;
    key.bytes = key_bytes.bytes;
    memset(&trust, 0, sizeof trust);
    trust.keys = &key;
    trust.key_count = 1;
    trust.threshold = 1;
    trust.counter = 1;
    stranger = trust;
    stranger.keys = &other;

    /* A device without a record, then with the first. */
    EXPECT(slm_update_boot(&device, &trust, page, &boot) == SLM_SLOT && boot.slot == 9);
    EXPECT(slm_update_install(&device, SLM_SLOT_A, &model) == SLM_NOT_OPEN);
    EXPECT(slm_open_signed(&model, board.slots[0], old.length, &trust) == SLM_OK);
    EXPECT(slm_update_install(NULL, SLM_SLOT_A, &model) == SLM_NULL);
    EXPECT(slm_update_install(&device, 2, &model) == SLM_ARGUMENT);
    device.write = NULL;
    EXPECT(slm_update_install(&device, SLM_SLOT_A, &model) == SLM_NULL);
    device.write = write_slot;
    device.erase_block_bytes = 100;
    EXPECT(slm_update_install(&device, SLM_SLOT_A, &model) == SLM_ARGUMENT);
    device.erase_block_bytes = BLOCK;
    EXPECT(slm_update_install(&device, SLM_SLOT_A, &model) == SLM_OK);
    EXPECT(slm_update_boot(&device, &trust, page, &boot) == SLM_OK && boot.slot == SLM_SLOT_A && boot.trial == 0);
    EXPECT(slm_update_reject(&device) == SLM_OK);

    /* What is refused writes nothing. */
    needed = slm_update_bytes(&package);
    EXPECT(needed > BLOCK && slm_update_bytes(NULL) == 0);
    memory = memory_of(needed);
    EXPECT(slm_update_apply(&device, &package, &trust, memory, needed - 1) == SLM_MEMORY);
    EXPECT(slm_update_apply(&device, &package, &stranger, memory, needed) == SLM_SIGNATURE);
    EXPECT(slm_update_apply(&device, NULL, &trust, memory, needed) == SLM_NULL);
    update.bytes[32] ^= 1;
    EXPECT(slm_update_apply(&device, &package, &trust, memory, needed) == SLM_BASE);
    update.bytes[32] ^= 1;
    update.bytes[0] ^= 1;
    EXPECT(slm_update_bytes(&package) == 0);
    EXPECT(slm_update_apply(&device, &package, &trust, memory, needed) == SLM_PACKAGE);
    update.bytes[0] ^= 1;
    board.counter = 3;
    EXPECT(slm_update_apply(&device, &package, &trust, memory, needed) == SLM_ROLLBACK);
    board.counter = 1;
    device.slot_bytes = BLOCK;
    EXPECT(slm_update_apply(&device, &package, &trust, memory, needed) == SLM_CAPACITY);
    device.slot_bytes = board.slot_bytes;
    EXPECT(board.slots[1][0] == 0x5a);
    /* A record at the end of the package that makes other bytes than were signed. */
    update.bytes[update.length - 1] ^= 0x55;
    EXPECT(slm_update_apply(&device, &package, &trust, memory, needed) == SLM_PACKAGE);
    update.bytes[update.length - 1] ^= 0x55;
    EXPECT(slm_update_boot(&device, &trust, page, &boot) == SLM_OK && boot.slot == SLM_SLOT_A);

    /* Power fails on the way; the same call goes on. */
    board.writes = 1;
    EXPECT(slm_update_apply(&device, &package, &trust, memory, needed) == SLM_DEVICE);
    EXPECT(slm_update_boot(&device, &trust, page, &boot) == SLM_OK && boot.slot == SLM_SLOT_A);
    board.writes = 1000000;
    EXPECT(slm_update_apply(&device, &package, &trust, memory, needed) == SLM_OK);
    EXPECT(memcmp(board.slots[1], applied.bytes, applied.length) == 0);

    /* The trial runs, is not well, is well. */
    EXPECT(slm_update_boot(&device, &trust, page, &boot) == SLM_OK && boot.slot == SLM_SLOT_B && boot.trial == 1);
    EXPECT(slm_update_apply(&device, &package, &trust, memory, needed) == SLM_TRIAL);
    EXPECT(slm_open_signed(&model, board.slots[1], applied.length, &trust) == SLM_OK);
    session_bytes = slm_session_bytes(&model);
    session = memory_of(session_bytes);
    EXPECT(slm_update_confirm(&device, &model, session, session_bytes, NULL, &healthy) == SLM_NULL);
    EXPECT(slm_update_confirm(&device, &model, session, session_bytes - 1, answer, &healthy) == SLM_MEMORY);
    EXPECT(slm_update_confirm(&device, &model, session, session_bytes, answer, &healthy) == SLM_HEALTH);
    EXPECT(board.counter == 1);
    healthy = 1;
    EXPECT(slm_update_confirm(&device, &model, session, session_bytes, answer, &healthy) == SLM_OK);
    EXPECT(board.counter == 2);
    EXPECT(slm_update_boot(&device, &trust, page, &boot) == SLM_OK && boot.slot == SLM_SLOT_B && boot.trial == 0);
    EXPECT(slm_update_confirm(&device, &model, session, session_bytes, answer, &healthy) == SLM_TRIAL);
    /* The package is for another artifact now, and the old one is older than what was confirmed. */
    EXPECT(slm_update_apply(&device, &package, &trust, memory, needed) == SLM_BASE);
    trust.counter = board.counter;
    EXPECT(slm_open_signed(&model, board.slots[0], old.length, &trust) == SLM_ROLLBACK);
    free(session);
    free(memory);
    free(page);
    free(board.slots[0]);
    free(board.slots[1]);
    free(old.bytes);
    free(update.bytes);
    free(applied.bytes);
    free(key_bytes.bytes);
    printf("%d\n", looked_at);
    return 0;
}
