/* Counts the instructions that the emulated processor executes, for `run --count`: a plugin for QEMU (plugin interface 1,
 * QEMU 4.2 and later). Debian ships no qemu-plugin.h, so the few declarations are here.
 *
 *     cc -O2 -shared -fPIC -o insn_count.so insn_count.c
 *     qemu-aarch64 -plugin ./insn_count.so -d plugin PROGRAM
 *
 * The same program with the same input gives the same number, whatever else the machine does. Where the program executes its
 * mark, an instruction that does nothing and that no compiler writes (probe/check/src/work.rs), the number so far is written
 * too, so that one run counts many pieces of work.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { INLINE_ADD_U64 = 0 };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
enum { NO_REGISTERS = 0 };
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int registers, void *data);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t amount);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
void qemu_plugin_outs(const char *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t executed;

static void marked(unsigned processor, void *data)
{
    char line[64];

    (void)processor;
    (void)data;
    snprintf(line, sizeof line, "mark %llu\n", (unsigned long long)executed);
    qemu_plugin_outs(line);
}

/* mov r11, r11 in Thumb; mov x11, x11; addi x0, x0, 0x5d. */
static int is_mark(const struct qemu_plugin_insn *instruction)
{
    static const unsigned char thumb[] = {0xdb, 0x46}, aarch64[] = {0xeb, 0x03, 0x0b, 0xaa}, riscv[] = {0x13, 0x00, 0xd0, 0x05};
    const void *data = qemu_plugin_insn_data(instruction);
    size_t size = qemu_plugin_insn_size(instruction);

    return (size == 2 && memcmp(data, thumb, 2) == 0) ||
           (size == 4 && (memcmp(data, aarch64, 4) == 0 || memcmp(data, riscv, 4) == 0));
}

/* Once for every block of instructions that is translated: count its instructions each time it runs. */
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    size_t count = qemu_plugin_tb_n_insns(block), at;

    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &executed, count);
    for (at = 0; at < count; at++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, at);

        if (is_mark(instruction))
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, marked, NO_REGISTERS, NULL);
    }
}

static void ended(qemu_plugin_id_t id, void *data)
{
    char line[64];

    (void)id;
    (void)data;
    snprintf(line, sizeof line, "instructions %llu\n", (unsigned long long)executed);
    qemu_plugin_outs(line);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
