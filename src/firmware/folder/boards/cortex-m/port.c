/* The console and the exit code of an emulator or a debugger: Arm semihosting, `bkpt 0xab` with the operation in r0 and its
 * argument in r1. Without a debugger the instruction is a fault: a device of one's own writes to its UART here instead. */
#include "port.h"

#include <stdint.h>

#define SYS_OPEN 0x01
#define SYS_WRITE 0x05
#define SYS_EXIT_EXTENDED 0x20
/* Reason of an exit that has a code. */
#define APPLICATION_EXIT 0x20026

static uintptr_t semihosting(uintptr_t operation, const volatile void *argument) {
    register uintptr_t number __asm__("r0") = operation;
    register const volatile void *block __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(number) : "r"(block) : "memory");
    return number;
}

static uintptr_t console;

void port_begin(void) {
    static const char name[] = ":tt";
    /* Mode 4 is "w". */
    volatile uintptr_t block[3] = {(uintptr_t)name, 4, sizeof name - 1};
    console = semihosting(SYS_OPEN, block);
}

void port_write(const char *text, size_t length) {
    volatile uintptr_t block[3] = {console, (uintptr_t)text, length};
    semihosting(SYS_WRITE, block);
}

void port_end(int result) {
    volatile uintptr_t block[2] = {APPLICATION_EXIT, (uintptr_t)result};
    semihosting(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}
