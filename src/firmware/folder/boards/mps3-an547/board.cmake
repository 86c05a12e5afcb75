# A Cortex-M55 without an operating system. Vectors of floats flush subnormals to zero, which the model's arithmetic forbids:
# integer Helium only.
include(boards/cortex-m/gcc.cmake)
set(SLM_CPU -mcpu=cortex-m55+nomve.fp -mthumb -mfloat-abi=hard)
set(SLM_RUST_TARGET thumbv8m.main-none-eabihf)
set(SLM_RUST_FLAGS "-Ctarget-cpu=cortex-m55 -Ctarget-feature=-mve.fp")
set(SLM_RUST_FEATURES panic-handler dsp helium)
