# What boards with a Cortex-M have in common: Debian's arm-none-eabi-gcc, no C library.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_ASM_COMPILER arm-none-eabi-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
# Headers of the compiler, not of a C library.
set(SLM_COMPILE -ffreestanding)
set(SLM_SOURCES boards/cortex-m/startup.c boards/cortex-m/port.c artifact/model-arm.o)
set(SLM_LINK -nostdlib -Wl,--gc-sections -L${CMAKE_CURRENT_LIST_DIR} -T${CMAKE_SOURCE_DIR}/boards/${SLM_BOARD}/board.ld)
set(SLM_LIBRARIES gcc)
