# A Cortex-M4 with an FPU, without an operating system.
include(boards/cortex-m/gcc.cmake)
set(SLM_CPU -mcpu=cortex-m4 -mthumb -mfloat-abi=hard)
set(SLM_RUST_TARGET thumbv7em-none-eabihf)
set(SLM_RUST_FLAGS "-Ctarget-cpu=cortex-m4")
set(SLM_RUST_FEATURES panic-handler dsp)
