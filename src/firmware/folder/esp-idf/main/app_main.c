/* The console of ESP-IDF, and its main. */
#include "firmware.h"
#include "port.h"

#include <stdio.h>

void port_begin(void) {
}

void port_write(const char *text, size_t length) {
    fwrite(text, 1, length, stdout);
    fflush(stdout);
}

void port_end(int result) {
    printf("result %d\n", result);
}

void app_main(void) {
    port_begin();
    port_end(firmware_run());
}
