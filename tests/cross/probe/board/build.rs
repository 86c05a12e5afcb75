//! The linker script: 320 KiB of code memory at 0 and 512 KiB of RAM at 0x20000000, which every board here has. The
//! artifact and the session's memory are elsewhere, at addresses the program is told when it starts. With the feature
//! `trusted`, where no artifact lies behind the program, 512 KiB of code memory.

use std::path::PathBuf;
use std::{env, fs};

const SCRIPT: &str = "
MEMORY {
    CODE (rx) : ORIGIN = 0x00000000, LENGTH = @CODE@
    RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 512K
}
ENTRY(reset)
_stack_top = ORIGIN(RAM) + LENGTH(RAM);
SECTIONS {
    .vectors : { KEEP(*(.vectors)) } > CODE
    .text : { *(.text .text.*) } > CODE
    .rodata : { *(.rodata .rodata.*) } > CODE
    .ARM.exidx : { *(.ARM.exidx .ARM.exidx.*) } > CODE
    .data : { . = ALIGN(4); _data_start = .; *(.data .data.*); . = ALIGN(4); _data_end = .; } > RAM AT > CODE
    _data_source = LOADADDR(.data);
    .bss (NOLOAD) : { . = ALIGN(8); _bss_start = .; *(.bss .bss.* COMMON); . = ALIGN(8); _bss_end = .; } > RAM
}
";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let path = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("board.ld");
    let code = if env::var_os("CARGO_FEATURE_TRUSTED").is_some() { "512K" } else { "320K" };
    fs::write(&path, SCRIPT.replace("@CODE@", code)).expect("the build folder is writable");
    println!("cargo::rustc-link-arg-bins=-T{}", path.display());
}
