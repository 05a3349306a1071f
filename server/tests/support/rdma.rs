//! Clients over RDMA, for tests where there is a device.

use std::os::fd::AsFd;
use std::sync::Arc;

use memkv_transport::buf::BufPool;
use memkv_transport::error::TransportError;
use memkv_transport::rdma::{self, Device, Reach, Registered, Selection};
use memkv_transport::session::ClientTerms;
use memkv_transport::shared::{Region, SharedMemory};
use memkv_wire::mac::Key;
use memkv_wire::{List, Ping, RdmaMemory, RegionDescriptor, RegionDescriptorWhich, RequestWhich, Status};

use super::{Client, KEY, MEMORY_BYTES};

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
    Ok(Client { reader, writer, next_id: 0, namespace: b"test".to_vec(), memory: None, signs: false })
}

/// A connection over a queue pair, with memory that the server reaches as region 1.
pub async fn connect_one_sided(address: &str, client_id: u8) -> Result<Client, TransportError> {
    let device = Device::open(&Selection::default())?;
    connect_one_sided_on(&device, address, client_id, MEMORY_BYTES).await
}

/// The same, with so much memory.
pub async fn connect_one_sided_on(
    device: &Arc<Device>,
    address: &str,
    client_id: u8,
    memory_bytes: usize,
) -> Result<Client, TransportError> {
    let (mut client, registered) = connect_reachable(device, address, client_id, memory_bytes).await?;
    assert_eq!(register(&mut client, &[(1, registered)]).await, Status::Ok);
    Ok(client)
}

/// As [`connect_one_sided`]; the server was not told of the memory yet.
pub async fn connect_reachable(
    device: &Arc<Device>,
    address: &str,
    client_id: u8,
    memory_bytes: usize,
) -> Result<(Client, Registered), TransportError> {
    let memory = SharedMemory::create(memory_bytes)?;
    let file = memory.as_fd().try_clone_to_owned()?;
    let pool = BufPool::new(memory_bytes);
    pool.share(1, memory);
    let memory = Arc::new(rdma::Memory::register(device, &[(&pool, Reach::Peer)])?);
    let registered = memory.registered().next().expect("the pool has memory");
    let (key, terms) = (Key::from_hex(KEY).unwrap(), ClientTerms::new([client_id; 16], "test"));
    let pool = BufPool::new(64 << 20);
    let connected = rdma::connect_reachable(address, &memory, &key, &terms, pool).await?;
    let (reader, writer, server) = connected;
    assert!(server.queue_pair.is_some(), "the server gave a queue pair");
    let memory = Region::open(file, memory_bytes as u64).unwrap();
    let client =
        Client { reader, writer, next_id: 0, namespace: b"test".to_vec(), memory: Some(memory), signs: true };
    Ok((client, registered))
}

/// Registers memory under these ids.
pub async fn register(client: &mut Client, regions: &[(u32, Registered)]) -> Status {
    let descriptor = |&(id, registered): &(u32, Registered)| {
        let rdma::RemotePlace { address, key } = registered.place;
        let which = RegionDescriptorWhich::Rdma(RdmaMemory { address, remote_key: key });
        RegionDescriptor { id, length: registered.size_bytes as u64, which }
    };
    let regions: Vec<_> = regions.iter().map(descriptor).collect();
    let ping = Ping { echo: 1, regions: List::from(&regions), ..Default::default() };
    client.call(RequestWhich::Ping(ping), &[]).await[0].status()
}
