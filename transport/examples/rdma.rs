//! How fast frames are over a queue pair, beside the bytes alone. In the guest of tools/rdma, or where there is a device:
//!
//!     cargo build --release -p memkv-transport --example rdma
//!     tools/rdma/guest target/release/examples/rdma
//!
//! Both ends are in one process. It prints the time of a round trip of 200 bytes, as bytes and as a frame (header, MAC, set-up done), and the rate of
//! 1 MiB payloads one way, as bytes and as frames (payload's tag, pooled buffers); then that of 1 MiB moved one-sided, eight at a time: alone, and
//! with what each side does with the bytes (MAC and checksum on both). What verbs alone can do the tools of Debian's package
//! `perftest` tell: `ib_send_lat -e -s 200`, `ib_read_bw -e -s 1048576`.

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("RDMA needs Linux");
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(linux::run())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::Arc;
    use std::time::Instant;

    use memkv_transport::buf::{BUDGET_SIZE_BYTES_MIN, Buf, BufPool};
    use memkv_transport::net::{Reader, Writer};
    use memkv_transport::rdma::{self, Device, Memory, Offer, Part, Prepared, Reach, RemotePlace, Selection};
    use memkv_transport::session::{ClientTerms, ServerTerms, SetupGate};
    use memkv_transport::shared::SharedMemory;
    use memkv_transport::stream::Outgoing;
    use memkv_wire::checksum::BlockHasher;
    use memkv_wire::mac::{BulkAlgorithm, BulkKey, Direction, Key, KeyRing, Schedule};
    use memkv_wire::{
        ControlBuf, Exists, List, Ping, PingReply, Request, RequestWhich, Response, ResponseWhich, Status,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    type Failure = Box<dyn std::error::Error + Send + Sync>;

    const ROUNDS: u32 = 2000;
    const SMALL_SIZE_BYTES: usize = 200;
    const LARGE_SIZE_BYTES: usize = 1 << 20;
    const LARGE_COUNT: usize = 256;

    pub async fn run() -> Result<(), Failure> {
        let device = Device::open(&Selection::default())?;
        let [bytes, framed] = [round_trip_of_bytes(&device).await?, round_trip_of_frames(&device).await?];
        println!(
            "round trip of {SMALL_SIZE_BYTES} bytes: {bytes:.0} us, of a frame {framed:.0} us, ratio {:.2}",
            framed / bytes
        );
        let [bytes, framed] = [rate_of_bytes(&device).await?, rate_of_frames(&device).await?];
        println!("1 MiB one way: {bytes:.0} MB/s, in frames {framed:.0} MB/s, ratio {:.2}", framed / bytes);
        for (name, way) in [("fetched", Way::Fetch), ("put", Way::Put)] {
            let [alone, checked] = [moved(&device, way, false).await?, moved(&device, way, true).await?];
            let ratio = checked / alone;
            println!("1 MiB {name}: {alone:.0} MB/s, made and checked {checked:.0} MB/s, ratio {ratio:.2}");
        }
        Ok(())
    }

    #[derive(Clone, Copy)]
    enum Way {
        Fetch,
        Put,
    }

    /// Transfers under way at a time.
    const MOVED_DEPTH: usize = 8;

    /// Two ends, of which the second moves bytes from and to buffers of the first.
    struct Ends {
        near: (rdma::ReadHalf, rdma::WriteHalf),
        far: (rdma::ReadHalf, rdma::WriteHalf),
        /// Of the second end.
        moving: BufPool,
        theirs: Vec<(Buf, RemotePlace)>,
        key: BulkKey,
    }

    impl Ends {
        async fn connect(device: &Arc<Device>) -> Result<Ends, Failure> {
            let pool = || BufPool::new(BUDGET_SIZE_BYTES_MIN);
            let (reached, moving) = (pool(), pool());
            reached.share(1, SharedMemory::create(BUDGET_SIZE_BYTES_MIN)?);
            moving.use_huge_pages(BUDGET_SIZE_BYTES_MIN)?;
            let memory = Arc::new(Memory::register(device, &[&reached], Reach::Peer)?);
            let own = Arc::new(Memory::register(device, &[&moving], Reach::Own)?);
            let RemotePlace { address, key } = memory.registered().next().ok_or("no memory")?.place;
            let (near, far) = sockets().await?;
            let client = Prepared::reachable(device, Reach::Peer)?.receive()?;
            let server = Prepared::new(device)?;
            client.connect(&server.identity(), true)?;
            let server = server.receive()?;
            server.connect(&client.identity(), false)?;
            let mut theirs = Vec::new();
            for _ in 0..MOVED_DEPTH {
                let buffer = reached.try_take(LARGE_SIZE_BYTES)?.freeze();
                let offset = buffer.place().map_or(0, |place| place.offset);
                theirs.push((buffer, RemotePlace { address: address + offset, key }));
            }
            let schedule = Schedule::new(&Key::from_bytes([7; 32]), b"C", b"R", 1);
            Ok(Ends {
                near: client.split(near, Some(memory), None)?,
                far: server.split(far, Some(own), None)?,
                moving,
                theirs,
                key: schedule.bulk_key(Direction::ClientToServer, BulkAlgorithm::preference()[0]),
            })
        }

        /// As many as go at a time. `checked`: with what both sides do with the bytes.
        async fn fetch(&self, checked: bool) -> Result<(), Failure> {
            let one_sided = self.far.0.one_sided().ok_or("no memory")?;
            let mut fetches = Vec::with_capacity(MOVED_DEPTH);
            for (bytes, from) in &self.theirs {
                self.look(bytes, checked);
                let part = Part { at: 0, size_bytes: LARGE_SIZE_BYTES, from: *from };
                fetches.push(one_sided.fetch(self.moving.try_take(LARGE_SIZE_BYTES)?, &[part])?);
            }
            for fetch in fetches {
                self.look(&fetch.await?, checked);
            }
            Ok(())
        }

        /// The same, each with a message that tells of it.
        async fn put(&mut self, checked: bool) -> Result<(), Failure> {
            let one_sided = self.far.0.one_sided().ok_or("no memory")?;
            for (_, to) in &self.theirs {
                let own = self.moving.take(LARGE_SIZE_BYTES).await?.freeze();
                self.look(&own, checked);
                one_sided.put(own, *to)?;
                self.far.1.write_all(&[1]).await?;
            }
            self.near.0.read_exact(&mut [0; MOVED_DEPTH]).await?;
            self.theirs.iter().for_each(|(bytes, _)| self.look(bytes, checked));
            Ok(())
        }

        /// Makes MAC and checksum of a payload.
        fn look(&self, bytes: &[u8], checked: bool) {
            let (mut mac, mut sum) = (self.key.begin_region(), BlockHasher::new());
            for step in bytes.chunks(64 << 10).filter(|_| checked) {
                mac.update(step);
                sum.update(step);
            }
            std::hint::black_box((mac.finish(), sum.finish()));
        }
    }

    /// MB/s of one-sided transfers.
    async fn moved(device: &Arc<Device>, way: Way, checked: bool) -> Result<f64, Failure> {
        let mut ends = Ends::connect(device).await?;
        let begun = Instant::now();
        for _ in 0..LARGE_COUNT / MOVED_DEPTH {
            match way {
                Way::Fetch => ends.fetch(checked).await?,
                Way::Put => ends.put(checked).await?,
            }
        }
        Ok((LARGE_COUNT * LARGE_SIZE_BYTES) as f64 / begun.elapsed().as_secs_f64() / 1e6)
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

    async fn connections(device: &Arc<Device>) -> Result<[(Reader, Writer); 2], Failure> {
        let (key, pool) = (Key::from_bytes([7; 32]), BufPool::new(64 << 20));
        let server = ServerTerms {
            server_id: [2; 16],
            server_name: "server".to_owned(),
            local_path: String::new(),
            requests_in_flight_max: 256,
            lease_ms: 10_000,
            bulk_macs: BulkAlgorithm::preference().to_vec(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let offer = Offer::new(vec![Arc::clone(device)], 1);
        let (keys, gate) = (KeyRing::from(key.clone()), SetupGate::default());
        let accept = async {
            let (socket, _) = listener.accept().await?;
            rdma::accept(socket, (&keys, &server), &gate, pool.clone(), &offer).await
        };
        let (address, terms) = (listener.local_addr()?, ClientTerms::new([1; 16], "client"));
        let connect = rdma::connect(address, device, &key, &terms, pool.clone());
        let (connected, accepted) = tokio::join!(connect, accept);
        let ((reader, writer, _), (server_reader, server_writer, _)) = (connected?, accepted?);
        Ok([(reader, writer), (server_reader, server_writer)])
    }

    /// Microseconds.
    async fn round_trip_of_bytes(device: &Arc<Device>) -> Result<f64, Failure> {
        let [(mut read, mut write), (mut far_read, mut far_write)] = streams(device).await?;
        let echo = tokio::spawn(async move {
            let mut bytes = [0; SMALL_SIZE_BYTES];
            while far_read.read_exact(&mut bytes).await.is_ok() && far_write.write_all(&bytes).await.is_ok() {
            }
        });
        let mut bytes = [0; SMALL_SIZE_BYTES];
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            write.write_all(&bytes).await?;
            read.read_exact(&mut bytes).await?;
        }
        let elapsed = begun.elapsed();
        drop((read, write));
        echo.await?;
        Ok(elapsed.as_secs_f64() * 1e6 / f64::from(ROUNDS))
    }

    /// Microseconds. The request asks for one key, as long as that of a chunk.
    async fn round_trip_of_frames(device: &Arc<Device>) -> Result<f64, Failure> {
        let [(mut reader, mut writer), (mut far_reader, mut far_writer)] = connections(device).await?;
        let echo = tokio::spawn(async move {
            while let Ok(Some(frame)) = far_reader.next().await {
                let request_id = frame.request_id;
                let which = ResponseWhich::Ping(PingReply { echo: 1, uptime_ms: 2 });
                let response = Response { status: Status::Ok, retry_after_ms: 0, detail: "", which };
                let mut answer = far_writer.blank();
                (answer.request_id, answer.last) = (request_id, true);
                response.encode(&mut answer.control)?;
                far_writer.push(answer)?;
                far_writer.flush().await?;
            }
            Ok::<_, Failure>(())
        });
        let keys: [&[u8]; 1] = [&[5; 32]];
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            let which = RequestWhich::Exists(Exists { keys: List::from(&keys[..]) });
            let mut frame = writer.blank();
            (frame.request_id, frame.last) = (1, true);
            Request { namespace: b"bench", which }.encode(&mut frame.control)?;
            writer.push(frame)?;
            writer.flush().await?;
            reader.next().await?.ok_or("the other side closed")?;
        }
        let elapsed = begun.elapsed();
        drop((reader, writer));
        echo.await??;
        Ok(elapsed.as_secs_f64() * 1e6 / f64::from(ROUNDS))
    }

    /// MB/s.
    async fn rate_of_bytes(device: &Arc<Device>) -> Result<f64, Failure> {
        let [(_read, mut write), (mut far_read, _far_write)] = streams(device).await?;
        let begun = Instant::now();
        let sending = async {
            let payload = vec![3; LARGE_SIZE_BYTES];
            for _ in 0..LARGE_COUNT {
                write.write_all(&payload).await?;
            }
            Ok::<_, Failure>(())
        };
        let receiving = async {
            let mut payload = vec![0; LARGE_SIZE_BYTES];
            for _ in 0..LARGE_COUNT {
                far_read.read_exact(&mut payload).await?;
            }
            Ok::<_, Failure>(())
        };
        tokio::try_join!(sending, receiving)?;
        Ok((LARGE_COUNT * LARGE_SIZE_BYTES) as f64 / begun.elapsed().as_secs_f64() / 1e6)
    }

    /// MB/s.
    async fn rate_of_frames(device: &Arc<Device>) -> Result<f64, Failure> {
        let [(_reader, mut writer), (mut far_reader, _far_writer)] = connections(device).await?;
        let payload = Buf::copy_of(&vec![3; LARGE_SIZE_BYTES])?;
        let begun = Instant::now();
        let sending = async {
            for _ in 0..LARGE_COUNT {
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
            for _ in 0..LARGE_COUNT {
                far_reader.next().await?.ok_or("the other side closed")?;
            }
            Ok::<_, Failure>(())
        };
        tokio::try_join!(sending, receiving)?;
        Ok((LARGE_COUNT * LARGE_SIZE_BYTES) as f64 / begun.elapsed().as_secs_f64() / 1e6)
    }
}
