//! Clients over RDMA, for tests where there is a device.

use std::sync::Arc;

use memkv_transport::buf::BufPool;
use memkv_transport::error::TransportError;
use memkv_transport::rdma::{self, Device, Selection};
use memkv_transport::session::ClientTerms;
use memkv_wire::mac::Key;

use super::{Client, KEY};

/// The device that servers of tests use, too. `None`, and the test counts as skipped, where there is none.
pub fn device(test: &str) -> Option<Arc<Device>> {
    match Device::open(&Selection::default()) {
        Ok(device) => Some(device),
        Err(error) => {
            println!("MEMKV-SKIP {test} no RDMA device here, `cargo xtask test --rdma` makes one: {error}");
            None
        }
    }
}

/// A connection over a queue pair.
pub async fn connect(address: &str, client_id: u8) -> Result<Client, TransportError> {
    let device = Device::open(&Selection::default())?;
    connect_on(&device, address, client_id).await
}

pub async fn connect_on(
    device: &Arc<Device>,
    address: &str,
    client_id: u8,
) -> Result<Client, TransportError> {
    let (key, terms) = (Key::from_hex(KEY).unwrap(), ClientTerms::new([client_id; 16], "test"));
    let connected = rdma::connect(address, device, &key, &terms, BufPool::new(64 << 20)).await?;
    let (reader, writer, server) = connected;
    assert!(server.queue_pair.is_some(), "the server gave a queue pair");
    Ok(Client { reader, writer, next_id: 0, namespace: b"test".to_vec(), memory: None })
}
