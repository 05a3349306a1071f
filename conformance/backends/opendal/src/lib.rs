//! `libkv_store_opendal`: a `kv_store_v1` backend over Apache OpenDAL, for stores that are already there.
//!
//! | URI | where |
//! |---|---|
//! | `opendal://fs/absolute/path` | files below a directory |
//! | `opendal://redis/host:port/namespace` | a Redis server; `?db=1`, `?username=name`; the password in `OPENDAL_REDIS_PASSWORD` |
//! | `opendal://s3/bucket/namespace` | S3 and what speaks it; `?region=...`, `?endpoint=...`; credentials as the AWS tools take them |
//!
//! How the promises of the interface are kept ([`store`]): a chunk is stored before `put_chunk` returns, nothing is
//! buffered, and each service writes an object whole or not at all. What survives a restart or a power cut is what the
//! service keeps: Redis needs its append-only file for that, and the file service flushes files but not directories.
//! Chunks are never deleted. The table is of version 1: there is no prefetching.
//!
//! The only module with unsafe code is [`ffi`]; nothing in it panics across C.
#![deny(unsafe_code)]

pub mod ffi;
pub mod object_name;
pub mod store;
pub mod uri;
