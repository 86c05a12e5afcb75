/* Text and numbers through port.h, without the C library. */
#ifndef SAY_H
#define SAY_H

#include "port.h"

#include <stdint.h>

static inline size_t text_length(const char *text) {
    size_t length = 0;
    while (text[length] != 0) {
        length++;
    }
    return length;
}

static inline void say(const char *text) {
    port_write(text, text_length(text));
}

static inline void say_number(uint64_t number) {
    char digits[20];
    size_t start = sizeof digits;
    do {
        digits[--start] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    port_write(digits + start, sizeof digits - start);
}

/* The bits of a float: what two machines say is the same text exactly where it is the same number. */
static inline void say_bits(float value) {
    union {
        float value;
        uint32_t bits;
    } both = {value};
    char digits[8];
    for (size_t place = 0; place < sizeof digits; place++) {
        digits[place] = "0123456789abcdef"[both.bits >> (28 - 4 * place) & 15];
    }
    port_write(digits, sizeof digits);
}

#endif
