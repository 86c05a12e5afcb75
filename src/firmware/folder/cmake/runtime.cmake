# slm_runtime_library(OUT): has cargo build the library from runtime/, which needs no other crate and no network, and sets OUT to
# its path; whatever links it depends on the target slm_runtime. Reads
#
#     SLM_RUST_TARGET    triple, empty for this machine        SLM_RUST_FLAGS     flags of the compiler
#     SLM_RUST_FEATURES  list: std or panic-handler, dsp, …    SLM_FEATURES       further features, with commas between
function(slm_runtime_library out)
    set(root ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/..)
    set(built ${CMAKE_CURRENT_BINARY_DIR}/runtime)
    set(library ${built}/release/libslm_runtime.a)
    set(target "")
    if(SLM_RUST_TARGET)
        set(library ${built}/${SLM_RUST_TARGET}/release/libslm_runtime.a)
        set(target --target ${SLM_RUST_TARGET})
    endif()
    string(REPLACE ";" "," features "${SLM_RUST_FEATURES}")
    if(SLM_FEATURES)
        string(APPEND features ",${SLM_FEATURES}")
    endif()
    find_program(CARGO cargo HINTS $ENV{HOME}/.cargo/bin REQUIRED)
    # Always asked: cargo knows what is up to date.
    add_custom_target(slm_runtime
        COMMAND ${CMAKE_COMMAND} -E env "RUSTFLAGS=${SLM_RUST_FLAGS}"
            ${CARGO} build --release --locked --offline --manifest-path ${root}/runtime/Cargo.toml
            --target-dir ${built} --features "${features}" ${target}
        BYPRODUCTS ${library}
        VERBATIM)
    set(${out} ${library} PARENT_SCOPE)
endfunction()
