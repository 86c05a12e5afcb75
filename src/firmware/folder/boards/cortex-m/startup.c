/* From reset to main: the vector table, the FPU on, static data in place. The linker script of the board gives the bounds. */
#include <stdint.h>

#include "port.h"

extern uint32_t _stack_top, _data_start, _data_end, _data_source, _bss_start, _bss_end;
int main(void);
void reset(void);

static void fault(void) {
    static const char text[] = "firmware: a fault\n";
    port_write(text, sizeof text - 1);
    port_end(3);
    for (;;) {
    }
}

#define FAULTS fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault

typedef void (*vector)(void);
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    vector handlers[15];
} vectors = {&_stack_top, {reset, FAULTS}};

__attribute__((noreturn, used, noinline)) static void start(void) {
    volatile uint32_t *to = &_data_start;
    for (const volatile uint32_t *from = &_data_source; to < &_data_end;) {
        *to++ = *from++;
    }
    for (to = &_bss_start; to < &_bss_end;) {
        *to++ = 0;
    }
    main();
    for (;;) {
    }
}

/* CPACR at 0xe000ed88: full access to coprocessors 10 and 11, the FPU and Helium, before any code may use them. */
__attribute__((naked, noreturn)) void reset(void) {
    __asm__ volatile(
        "ldr r0, =0xe000ed88\n"
        "ldr r1, [r0]\n"
        "orr r1, r1, #0xf00000\n"
        "str r1, [r0]\n"
        "dsb\n"
        "isb\n"
        "b %c0\n" ::"i"(start));
}
