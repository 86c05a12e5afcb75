/* A machine with an operating system: standard output. */
#include "port.h"

#include <stdio.h>

void port_begin(void) {
}

void port_write(const char *text, size_t length) {
    fwrite(text, 1, length, stdout);
    fflush(stdout);
}

void port_end(int result) {
    (void)result;
}
