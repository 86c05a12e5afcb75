/* The console of Zephyr, and its main. */
#include "firmware.h"
#include "port.h"

#include <zephyr/sys/printk.h>

void port_begin(void) {
}

void port_write(const char *text, size_t length) {
    for (size_t index = 0; index < length; index++) {
        printk("%c", text[index]);
    }
}

void port_end(int result) {
    printk("result %d\n", result);
}

int main(void) {
    port_begin();
    port_end(firmware_run());
    return 0;
}
