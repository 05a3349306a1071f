//! What libFuzzer asks a sanitizer's runtime for, which is not linked here: where a program counter is.
//!
//! The answer is the distance from [`memkv_fuzz_marker`]; `cargo xtask fuzz --coverage` makes names and lines of it.

use std::ffi::{c_char, c_int, c_void};

/// The address that all others are told from.
#[unsafe(no_mangle)]
pub extern "C" fn memkv_fuzz_marker() {}

/// # Safety
/// `text` has room for `size` bytes, as libFuzzer gives it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_symbolize_pc(
    pc: *mut c_void,
    _format: *const c_char,
    text: *mut c_char,
    size: usize,
) {
    let distance = (pc as usize).wrapping_sub(memkv_fuzz_marker as *const () as usize) as isize;
    let said = format!("{distance}\0");
    if said.len() <= size {
        // SAFETY: the text has room, which was just checked against what the caller said.
        unsafe { std::ptr::copy_nonoverlapping(said.as_ptr().cast(), text, said.len()) };
    }
}

/// # Safety
/// `module` has room for `size` bytes and `offset` is a variable, as libFuzzer gives them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_get_module_and_offset_for_pc(
    pc: *mut c_void,
    module: *mut c_char,
    size: usize,
    offset: *mut *mut c_void,
) -> c_int {
    if size < 2 {
        return 0;
    }
    // SAFETY: there is room for two bytes, which was just checked, and the variable is the caller's.
    unsafe {
        module.copy_from_nonoverlapping(c"m".as_ptr(), 2);
        *offset = pc;
    }
    1
}
