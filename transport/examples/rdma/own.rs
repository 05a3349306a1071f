//! The stream over a queue pair, frames over the stream, and one-sided transfers beside it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use memkv_transport::buf::{Buf, BufPool};
use memkv_transport::net::{Reader, Writer};
use memkv_transport::rdma::{self, Device, Memory, Offer, Part, Prepared, Reach, RemotePlace};
use memkv_transport::session::{ClientTerms, ServerTerms, SetupGate};
use memkv_transport::shared::SharedMemory;
use memkv_transport::stream::Outgoing;
use memkv_wire::mac::{BulkAlgorithm, BulkKey, Key, KeyRing};
use memkv_wire::{
    ControlBuf, Exists, List, Ping, PingReply, Request, RequestWhich, Response, ResponseWhich, Status,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;
use crate::bare::Sizes;
use crate::table::{Bulk, LARGE_SIZE_BYTES, Moved, ROUNDS, Way, look, microseconds};

/// More than all that is under way at a time.
const POOL_SIZE_BYTES: usize = 64 << 20;

/// Two ends, of which the second moves bytes from and to buffers of the first.
struct Ends {
    near: (rdma::ReadHalf, rdma::WriteHalf),
    far: (rdma::ReadHalf, rdma::WriteHalf),
    /// Of the second end.
    moving: BufPool,
    theirs: Vec<(Buf, RemotePlace)>,
}

impl Ends {
    async fn connect(device: &Arc<Device>, depth: usize) -> Result<Ends, Failure> {
        let pool = || BufPool::new(POOL_SIZE_BYTES);
        let (reached, moving) = (pool(), pool());
        reached.share(1, SharedMemory::create(POOL_SIZE_BYTES)?);
        moving.use_huge_pages(POOL_SIZE_BYTES)?;
        let memory = Arc::new(Memory::register(device, &[(&reached, Reach::Peer)])?);
        let own = Arc::new(Memory::register(device, &[(&moving, Reach::Own)])?);
        let RemotePlace { address, key } = memory.registered().next().ok_or("no memory")?.place;
        let (near, far) = sockets().await?;
        let client = Prepared::reachable(device, Reach::Peer)?.receive()?;
        let server = Prepared::new(device)?;
        client.connect(&server.identity(), true)?;
        let server = server.receive()?;
        server.connect(&client.identity(), false)?;
        let mut theirs = Vec::new();
        for _ in 0..depth {
            let buffer = reached.try_take(LARGE_SIZE_BYTES)?.freeze();
            let offset = buffer.place().ok_or("a buffer beside the registered memory")?.offset;
            theirs.push((buffer, RemotePlace { address: address + offset, key }));
        }
        let (near, far) = (client.split(near, Some(memory), None)?, server.split(far, Some(own), None)?);
        Ok(Ends { near, far, moving, theirs })
    }

    async fn fetch(&self, bulk: Bulk, key: &BulkKey) -> Result<f64, Failure> {
        let one_sided = self.far.0.one_sided().ok_or("no memory")?;
        let begin = |(bytes, from): &(Buf, RemotePlace)| -> Result<rdma::Fetch, Failure> {
            look(key, bytes, bulk.checked);
            let part = Part { at: 0, size_bytes: LARGE_SIZE_BYTES, from: *from };
            Ok(one_sided.fetch(self.moving.try_take(LARGE_SIZE_BYTES)?, &[part])?)
        };
        let mut moved = Moved::begin();
        let mut under_way = self.theirs.iter().map(begin).collect::<Result<VecDeque<_>, _>>()?;
        while let Some(fetch) = under_way.pop_front() {
            look(key, &fetch.await?, bulk.checked);
            moved.count += 1;
            if moved.count + under_way.len() < Moved::COUNT {
                under_way.push_back(begin(&self.theirs[moved.count % bulk.depth])?);
            }
        }
        Ok(moved.rate())
    }

    /// Each with a message that tells of it.
    async fn put(&mut self, bulk: Bulk, key: &BulkKey) -> Result<f64, Failure> {
        let Ends { near, far, moving, theirs } = self;
        let one_sided = far.0.one_sided().ok_or("no memory")?;
        let begin = |to: RemotePlace| -> Result<(), Failure> {
            let own = moving.try_take(LARGE_SIZE_BYTES)?.freeze();
            look(key, &own, bulk.checked);
            Ok(one_sided.put(own, to)?)
        };
        let mut moved = Moved::begin();
        for (_, to) in theirs.iter() {
            begin(*to)?;
            far.1.write_all(&[1]).await?;
        }
        while !moved.is_done() {
            near.0.read_exact(&mut [0]).await?;
            let (bytes, to) = &theirs[moved.count % bulk.depth];
            look(key, bytes, bulk.checked);
            moved.count += 1;
            if moved.count + bulk.depth <= Moved::COUNT {
                begin(*to)?;
                far.1.write_all(&[1]).await?;
            }
        }
        Ok(moved.rate())
    }
}

/// MB/s of one-sided transfers.
pub async fn moved(device: &Arc<Device>, bulk: Bulk, key: &BulkKey) -> Result<f64, Failure> {
    let mut ends = Ends::connect(device, bulk.depth).await?;
    match bulk.way {
        Way::Fetch => ends.fetch(bulk, key).await,
        Way::Put => ends.put(bulk, key).await,
    }
}

async fn streams(device: &Arc<Device>) -> Result<[(rdma::ReadHalf, rdma::WriteHalf); 2], Failure> {
    let (near, far) = sockets().await?;
    let (client, server) = (Prepared::new(device)?.receive()?, Prepared::new(device)?);
    client.connect(&server.identity(), true)?;
    let server = server.receive()?;
    server.connect(&client.identity(), false)?;
    Ok([client.split(near, None, None)?, server.split(far, None, None)?])
}

async fn sockets() -> Result<(TcpStream, TcpStream), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    Ok((near?, far?.0))
}

/// An end of a connection.
pub type End = (Reader, Writer);

fn key() -> Key {
    Key::from_bytes([7; 32])
}

/// The end of who asks.
pub async fn connected(device: &Arc<Device>, address: SocketAddr) -> Result<End, Failure> {
    let (terms, pool) = (ClientTerms::new([1; 16], "client"), BufPool::new(POOL_SIZE_BYTES));
    let (reader, writer, _) = rdma::connect(address, device, &key(), &terms, pool).await?;
    Ok((reader, writer))
}

/// The end of who answers.
pub async fn accepted(device: &Arc<Device>, listener: &TcpListener) -> Result<End, Failure> {
    let server = ServerTerms {
        server_id: [2; 16],
        server_name: "server".to_owned(),
        local_path: String::new(),
        queue_pairs: true,
        requests_in_flight_max: 256,
        lease_ms: 10_000,
        bulk_macs: BulkAlgorithm::preference().to_vec(),
    };
    let offer = Offer::new(vec![Arc::clone(device)], 1);
    let (keys, gate) = (KeyRing::from(key()), SetupGate::default());
    let pool = BufPool::new(POOL_SIZE_BYTES);
    let (socket, _) = listener.accept().await?;
    let (reader, writer, _) = rdma::accept(socket, (&keys, &server), &gate, pool, &offer).await?;
    Ok((reader, writer))
}

async fn connections(device: &Arc<Device>) -> Result<[End; 2], Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (near, far) =
        tokio::try_join!(connected(device, listener.local_addr()?), accepted(device, &listener))?;
    Ok([near, far])
}

/// Microseconds.
pub async fn round_trip_of_bytes(device: &Arc<Device>, (there, back): Sizes) -> Result<f64, Failure> {
    let [(mut read, mut write), (mut far_read, mut far_write)] = streams(device).await?;
    let echo = tokio::spawn(async move {
        let (mut asked, answer) = (vec![0; there], vec![0; back]);
        while far_read.read_exact(&mut asked).await.is_ok() && far_write.write_all(&answer).await.is_ok() {}
    });
    let asking = tokio::spawn(async move {
        let (asked, mut answer) = (vec![0; there], vec![0; back]);
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            write.write_all(&asked).await?;
            read.read_exact(&mut answer).await?;
        }
        Ok::<_, Failure>(microseconds(begun.elapsed()))
    });
    let elapsed = asking.await??;
    echo.await?;
    Ok(elapsed)
}

/// Asks for one key, as long as that of a chunk.
fn write_request(control: &mut ControlBuf) -> Result<(), Failure> {
    let keys: [&[u8]; 1] = [&[5; 32]];
    let which = RequestWhich::Exists(Exists { keys: List::from(&keys[..]) });
    Ok(Request { namespace: b"bench", which }.encode(control)?)
}

fn write_reply(control: &mut ControlBuf) -> Result<(), Failure> {
    let which = ResponseWhich::Ping(PingReply { echo: 1, uptime_ms: 2 });
    Ok(Response { status: Status::Ok, retry_after_ms: 0, detail: "", which }.encode(control)?)
}

/// The bytes of the two frames of a round trip.
pub fn frame_sizes() -> Result<Sizes, Failure> {
    let (mut there, mut back) = (ControlBuf::new(), ControlBuf::new());
    write_request(&mut there)?;
    write_reply(&mut back)?;
    Ok((there.frame().len(), back.frame().len()))
}

/// Asks so often and waits for each answer.
async fn ask((reader, writer): &mut End, rounds: u32) -> Result<(), Failure> {
    for _ in 0..rounds {
        let mut frame = writer.blank();
        (frame.request_id, frame.last) = (1, true);
        write_request(&mut frame.control)?;
        writer.push(frame)?;
        writer.flush().await?;
        reader.next().await?.ok_or("the other side closed")?;
    }
    Ok(())
}

pub async fn answer((reader, writer): &mut End, rounds: u32) -> Result<(), Failure> {
    for _ in 0..rounds {
        let request_id = reader.next().await?.ok_or("the other side closed")?.request_id;
        let mut frame = writer.blank();
        (frame.request_id, frame.last) = (request_id, true);
        write_reply(&mut frame.control)?;
        writer.push(frame)?;
        writer.flush().await?;
    }
    Ok(())
}

/// Microseconds of a round trip. Who asks is a task, as a client's connection is.
pub async fn asked(mut end: End) -> Result<f64, Failure> {
    let asking = tokio::spawn(async move {
        let begun = Instant::now();
        ask(&mut end, ROUNDS).await?;
        Ok(microseconds(begun.elapsed()))
    });
    asking.await?
}

/// Microseconds.
pub async fn round_trip_of_frames(device: &Arc<Device>) -> Result<f64, Failure> {
    let [near, mut far] = connections(device).await?;
    let echo = tokio::spawn(async move { answer(&mut far, ROUNDS).await.map(|()| far) });
    let elapsed = asked(near).await?;
    echo.await??;
    Ok(elapsed)
}

/// MB/s.
pub async fn rate_of_frames(device: &Arc<Device>) -> Result<f64, Failure> {
    let [(_reader, mut writer), (mut far_reader, _far_writer)] = connections(device).await?;
    let payload = Buf::copy_of(&vec![3; LARGE_SIZE_BYTES])?;
    let begun = Instant::now();
    let sending = async {
        for _ in 0..Moved::COUNT {
            let mut control = ControlBuf::new();
            Request { namespace: b"bench", which: RequestWhich::Ping(Ping::default()) }
                .encode(&mut control)?;
            writer.push(Outgoing {
                request_id: 1,
                last: true,
                control,
                payload: vec![payload.clone()],
                ..Outgoing::default()
            })?;
            writer.flush().await?;
        }
        Ok::<_, Failure>(())
    };
    let receiving = async {
        for _ in 0..Moved::COUNT {
            far_reader.next().await?.ok_or("the other side closed")?;
        }
        Ok::<_, Failure>(())
    };
    tokio::try_join!(sending, receiving)?;
    Ok((Moved::COUNT * LARGE_SIZE_BYTES) as f64 / begun.elapsed().as_secs_f64() / 1e6)
}
