/* The program around the model, for the board's main. */
#ifndef FIRMWARE_H
#define FIRMWARE_H

/* Opens the artifact, verifies it, runs its self-test and the prompt of firmware_config.h. 0 where all of it went well, else 1,
 * after a line that says why. */
int firmware_run(void);

#endif
