//! From reset to `main`: vector table, FPU on, static data in place, the free stack painted so that its use can be read
//! off afterwards.

use core::arch::global_asm;

use crate::semihosting::exit;

// Sixteen vectors; everything but reset is a fault here. CPACR at 0xe000ed88: full access to coprocessors 10 and 11, the
// FPU and Helium; a core without them ignores the write.
global_asm!(
    ".section .vectors,\"a\",%progbits",
    ".word _stack_top",
    ".word reset",
    ".rept 14",
    ".word fault",
    ".endr",
    ".text",
    ".syntax unified",
    ".thumb",
    ".global reset",
    ".type reset,%function",
    ".thumb_func",
    "reset:",
    "ldr r0, =0xe000ed88",
    "ldr r1, [r0]",
    "orr r1, r1, #0xf00000",
    "str r1, [r0]",
    "dsb",
    "isb",
    "bl start",
    "b .",
    ".global fault",
    ".type fault,%function",
    ".thumb_func",
    "fault:",
    "b hard_fault",
);

unsafe extern "C" {
    static mut _data_start: u32;
    static mut _data_end: u32;
    static _data_source: u32;
    static mut _bss_start: u32;
    static mut _bss_end: u32;
    static _stack_top: u32;
}

const PAINT: u32 = 0x5c5c_5c5c;
/// Kept unpainted below the frame that paints.
const MARGIN: usize = 256;

#[unsafe(no_mangle)]
extern "C" fn start() -> ! {
    // SAFETY: the linker script sets the bounds, nothing else runs yet, and no static is used before this.
    unsafe {
        let (mut to, end, mut from) = (&raw mut _data_start, &raw mut _data_end, &raw const _data_source);
        while to < end {
            to.write_volatile(from.read());
            (to, from) = (to.add(1), from.add(1));
        }
        let (mut to, end) = (&raw mut _bss_start, &raw mut _bss_end);
        while to < end {
            to.write_volatile(0);
            to = to.add(1);
        }
    }
    paint();
    crate::main()
}

/// Paints the free stack, and says where its used part begins.
#[inline(never)]
pub fn paint() -> usize {
    let here = 0u32;
    // SAFETY: nothing lies between the end of the static data and what is in use of the stack.
    unsafe {
        let end = (&raw const here).byte_sub(MARGIN);
        let mut to = &raw mut _bss_end;
        while to.cast_const() < end {
            to.write_volatile(PAINT);
            to = to.add(1);
        }
    }
    &raw const here as usize
}

/// Most bytes of stack that have been used since it was painted.
pub fn stack_bytes() -> usize {
    stack_below(&raw const _stack_top as usize)
}

/// The same, as far as they are below an address in it.
pub fn stack_below(top: usize) -> usize {
    let mut at = (&raw const _bss_end).cast::<u32>();
    // SAFETY: plain words between the end of the static data and the top of the stack.
    unsafe {
        while (at as usize) < top && at.read_volatile() == PAINT {
            at = at.add(1);
        }
    }
    top - at as usize
}

#[unsafe(no_mangle)]
extern "C" fn hard_fault() -> ! {
    // SAFETY: the configurable fault status register of every core here.
    let status = unsafe { (0xe000_ed28 as *const u32).read_volatile() };
    crate::say(format_args!("fault, status {status:#010x}\n"));
    exit(3)
}
