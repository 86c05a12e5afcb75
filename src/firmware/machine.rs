//! What a target's triple says about the tool chain of a device: the machine of its object files, and the boards that a folder
//! has programs for.

use crate::target::Target;
use object::Architecture;
use object::elf::{
    EF_ARM_ABI_FLOAT_HARD, EF_ARM_ABI_FLOAT_SOFT, EF_ARM_EABI_VER5, EF_RISCV_FLOAT_ABI_DOUBLE,
    EF_RISCV_FLOAT_ABI_SINGLE, EF_RISCV_RVC,
};

/// A machine of ELF object files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// As CMake and `uname -m` have it: the object is `model-NAME.o`.
    pub name: &'static str,
    /// For the writer of objects.
    pub architecture: Architecture,
    /// `e_flags`: the calling convention, which linkers compare.
    pub flags: u32,
}

/// An emulated board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Board {
    /// Its folder below `boards/`, and `-M` of qemu-system-arm.
    pub name: &'static str,
    /// In words.
    pub core: &'static str,
    /// The triple of its library.
    pub triple: &'static str,
    /// The instruction set whose layout it runs fast.
    isa: &'static str,
}

/// Every emulated board.
pub(super) const BOARDS: [Board; 2] = [
    Board { name: "mps3-an547", core: "Cortex-M55", triple: "thumbv8m.main-none-eabihf", isa: "mve" },
    Board { name: "mps2-an386", core: "Cortex-M4", triple: "thumbv7em-none-eabihf", isa: "dsp" },
];

/// The board that a target describes, if there is one.
pub(super) fn board(target: &Target) -> Option<Board> {
    let is = |board: &Board| target.triple.as_deref() == Some(board.triple) && target.isa.as_deref() == Some(board.isa);
    BOARDS.into_iter().find(is)
}

/// The machine of a triple; `None` where it has no ELF objects (WebAssembly), or is none that is known here.
pub(super) fn machine(triple: &str) -> Option<Machine> {
    let architecture = triple.split('-').next().unwrap_or_default();
    let of = |name, architecture, flags| Some(Machine { name, architecture, flags });
    if architecture.starts_with("thumb") || (architecture.starts_with("arm") && architecture != "arm64_32") {
        let float = if triple.ends_with("hf") { EF_ARM_ABI_FLOAT_HARD } else { EF_ARM_ABI_FLOAT_SOFT };
        return of("arm", Architecture::Arm, EF_ARM_EABI_VER5 | float);
    }
    if let Some(extensions) = architecture.strip_prefix("riscv32") {
        return of("riscv32", Architecture::Riscv32, riscv(extensions));
    }
    if let Some(extensions) = architecture.strip_prefix("riscv64") {
        return of("riscv64", Architecture::Riscv64, riscv(extensions));
    }
    match architecture {
        "aarch64" if !triple.contains("apple") && !triple.contains("windows") => {
            of("aarch64", Architecture::Aarch64, 0)
        }
        "x86_64" if !triple.contains("apple") && !triple.contains("windows") => of("x86_64", Architecture::X86_64, 0),
        _ => None,
    }
}

/// Flags of the calling convention by the letters of the extensions: `g` is `imafd`.
fn riscv(extensions: &str) -> u32 {
    // Extensions of several letters come after an underscore or `z`.
    let letters = extensions.split(['_', 'z']).next().unwrap_or_default();
    let has = |letter| letters.contains(letter);
    let float = match (has('g') || has('d'), has('f')) {
        (true, _) => EF_RISCV_FLOAT_ABI_DOUBLE,
        (false, true) => EF_RISCV_FLOAT_ABI_SINGLE,
        (false, false) => 0,
    };
    let compressed = if has('c') { EF_RISCV_RVC } else { 0 };
    float | compressed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples_name_machines() {
        let found = |triple: &str| machine(triple).map(|machine| (machine.name, machine.flags));
        for (triple, expected) in [
            ("thumbv8m.main-none-eabihf", Some(("arm", 0x0500_0400))),
            ("thumbv7m-none-eabi", Some(("arm", 0x0500_0200))),
            ("riscv32imc-unknown-none-elf", Some(("riscv32", 1))),
            ("riscv32imafc-unknown-none-elf", Some(("riscv32", 3))),
            ("riscv64gc-unknown-linux-gnu", Some(("riscv64", 5))),
            ("aarch64-unknown-linux-gnu", Some(("aarch64", 0))),
            ("x86_64-unknown-linux-gnu", Some(("x86_64", 0))),
            ("aarch64-apple-darwin", None),
            ("wasm32-unknown-unknown", None),
            ("", None),
        ] {
            assert_eq!(found(triple), expected, "{triple}");
        }
    }

    #[test]
    fn targets_that_describe_a_board_have_it() {
        for (name, expected) in
            [("cortex-m55", Some("mps3-an547")), ("cortex-m4", Some("mps2-an386")), ("generic", None)]
        {
            let target = Target::named(name).unwrap();
            assert_eq!(board(&target).map(|board| board.name), expected);
        }
    }
}
