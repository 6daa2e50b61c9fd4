//! The order of accesses to memory that can be seen at two addresses.

/// Whether there is a fence. Without one no memory may be mapped twice: that is where stable Rust
/// has no inline assembly.
pub(super) const EXISTS: bool = cfg!(any(
    target_arch = "x86",
    target_arch = "x86_64",
    target_arch = "arm",
    target_arch = "aarch64",
    target_arch = "riscv32",
    target_arch = "riscv64",
    target_arch = "loongarch64",
    target_arch = "s390x"
));

/// Accesses to the memory that the pointer leads to stay on their side of this call.
///
/// The compiler must take an assembly that is given a pointer for code that reads and writes all
/// memory behind it, unless it is said not to (`nomem`, `readonly`). That one is empty, and costs
/// no instruction. (`hint::black_box` would do the same, but promises nothing.)
#[inline(always)]
#[allow(unused_variables, reason = "where there is no assembly, nobody calls it")]
pub(super) fn touch(memory: *mut u8) {
    #[cfg(any(
        target_arch = "x86",
        target_arch = "x86_64",
        target_arch = "arm",
        target_arch = "aarch64",
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "loongarch64",
        target_arch = "s390x"
    ))]
    // SAFETY: it is only a comment of the assembly's, and does nothing.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) memory, options(nostack, preserves_flags));
    }
}
