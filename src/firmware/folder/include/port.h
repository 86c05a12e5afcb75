/* What a board lends the program: a place for text, and an end. boards/BOARD/port.c implements it; a board of one's own is a copy
 * of one of these folders. */
#ifndef PORT_H
#define PORT_H

#include <stddef.h>

/* Called once before anything else: clocks, a UART. */
void port_begin(void);

/* Writes bytes of UTF-8, which may end within a character. */
void port_write(const char *text, size_t length);

/* Called with the result, 0 where all went well; need not return. */
void port_end(int result);

#endif
