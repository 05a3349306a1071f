//! `libkv_store_memkv`: MemKV behind the `kv_store_v1` C interface, for engines that load their store at run time.
//!
//! - [`ffi`]: the table and its functions, the boundary where C's pointers become slices;
//! - [`code`]: the return codes;
//! - `store`: what an open handle does, in safe Rust over [`memkv_client`];
//! - `buffer` and `prefetch`: chunks on their way in and out;
//! - `stored`: chunks that need not be sent or copied again.
//!
//! Invariants: nothing unwinds or aborts across the boundary; a handle used after `close`, or in a child after
//! `fork`, is answered with a code; a chunk that `put_chunk` took stays readable through its handle until the
//! server acknowledged it.
//!
//! Not checked: that a hash is the hash of its data (the engine chose it), and pointers that are neither NULL nor
//! good for the length beside them, which no library can check.
#![deny(unsafe_code)]

mod buffer;
mod cbuf;
pub mod code;
pub mod ffi;
mod log;
mod prefetch;
mod store;
mod stored;
