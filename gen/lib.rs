//! The MemKV wire protocol.
