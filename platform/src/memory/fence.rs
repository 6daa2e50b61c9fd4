//! The order of accesses to memory that can be seen at two addresses.

/// What there is on the processors for which stable Rust has inline assembly, and on the others.
macro_rules! with_assembly_on {
    ($($processor:tt)*) => {
        /// Whether there is a fence. Without one no memory may be mapped twice.
        pub(super) const EXISTS: bool = cfg!(any($(target_arch = $processor),*));

        /// Accesses to the memory that the pointer leads to stay on their side of this call.
        ///
        /// The compiler must take an assembly that is given a pointer for code that reads and
        /// writes all memory behind it, unless it is said not to (`nomem`, `readonly`). That one is
        /// empty, and costs no instruction. (`hint::black_box` would do the same, but promises
        /// nothing.)
        #[inline(always)]
        #[allow(unused_variables, reason = "where there is no assembly, nobody calls it")]
        pub(super) fn touch(memory: *mut u8) {
            #[cfg(any($(target_arch = $processor),*))]
            // SAFETY: it is only a comment of the assembly's, and does nothing.
            unsafe {
                std::arch::asm!("/* {0} */", in(reg) memory, options(nostack, preserves_flags));
            }
        }
    };
}

with_assembly_on! {
    "x86" "x86_64" "arm" "aarch64" "riscv32" "riscv64" "loongarch64" "s390x"
}
