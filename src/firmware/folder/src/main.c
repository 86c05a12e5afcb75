/* Runs the model once. ESP-IDF has an app_main of its own instead, in esp-idf/main. */
#include "firmware.h"
#include "port.h"

int main(void) {
    port_begin();
    int result = firmware_run();
    port_end(result);
    return result;
}
