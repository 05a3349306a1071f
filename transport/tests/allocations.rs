//! In steady state neither side allocates, whatever the frames hold, and an idle connection holds little.

mod support;

use allocation_counter::{AllocationInfo, measure};
use memkv_transport::buf::{Buf, BufPool};
use memkv_transport::receiver::{Next, Receiver};
use memkv_transport::sealer::Sealer;
use memkv_transport::stream::{Reader, Writer};
use memkv_wire::{ControlBuf, Exists, List, Ping, Request, RequestWhich};
use support::*;

const PAYLOAD_SIZES: [usize; 5] = [0, 100, 4096, 65_536, 1_048_576];

fn encode(control: &mut ControlBuf, echo: u64) {
    let ping = Ping { echo, ..Ping::default() };
    Request { namespace: b"tests", which: RequestWhich::Ping(ping) }.encode(control).unwrap();
}

fn counted(run: impl FnOnce()) -> AllocationInfo {
    measure(run)
}

/// Seals into `control` and receives the very slices, as a socket would hand them over.
fn round(sealer: &mut Sealer, receiver: &mut Receiver, control: &mut ControlBuf, payload: &[Buf]) {
    encode(control, 1);
    let frame = sealer.seal(1, true, control, payload).unwrap();
    for mut slice in frame.slices() {
        while !slice.is_empty() {
            assert!(matches!(receiver.next_frame(), Ok(Next::NeedBytes)));
            let space = receiver.space();
            let count = space.len().min(slice.len());
            space[..count].copy_from_slice(&slice[..count]);
            receiver.advance(count);
            slice = &slice[count..];
        }
    }
    let Ok(Next::Frame(frame)) = receiver.next_frame() else { panic!("the frame is whole") };
    assert_eq!(frame.payload.map_or(0, |payload| payload.len()), payload.iter().map(|part| part.len()).sum());
}

#[test]
fn sealing_and_receiving_allocate_nothing() {
    for algorithm in ALGORITHMS {
        let mut pair = pair(algorithm, 1, 2);
        let mut control = ControlBuf::new();
        for size_bytes in PAYLOAD_SIZES {
            let payload = [Buf::copy_of(&vec![7; size_bytes]).unwrap()];
            let mut rounds = |count| {
                for _ in 0..count {
                    round(&mut pair.client.0, &mut pair.server.1, &mut control, &payload);
                }
            };
            rounds(2);
            let info = counted(|| rounds(20));
            assert_eq!(info.count_total, 0, "{algorithm:?}, {size_bytes} bytes");
        }
    }
}

#[test]
fn readers_and_writers_allocate_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for size_bytes in PAYLOAD_SIZES {
        let pair = pair(ALGORITHMS[1], 1, 2);
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut writer = Writer::new(near, pair.client.0);
        let mut reader = Reader::new(far, pair.server.1);
        let payload = Buf::copy_of(&vec![7; size_bytes]).unwrap();
        let mut rounds = |count: usize| {
            runtime.block_on(async {
                for at in 0..count {
                    for _ in 0..3 {
                        let mut frame = writer.blank();
                        frame.request_id = at as u32;
                        encode(&mut frame.control, 1);
                        frame.payload.push(payload.clone());
                        writer.push(frame).unwrap();
                    }
                    let reading = async {
                        for _ in 0..3 {
                            let frame = reader.next().await.unwrap().unwrap();
                            assert_eq!(frame.request_id as usize, at);
                        }
                    };
                    let (flushed, ()) = tokio::join!(writer.flush(), reading);
                    flushed.unwrap();
                }
            });
        };
        rounds(5);
        let info = counted(|| rounds(50));
        assert_eq!(info.count_total, 0, "{size_bytes} bytes");
    }
}

#[test]
fn buffers_from_a_warm_pool_allocate_nothing() {
    let pool = BufPool::new(64 << 20);
    let round = || {
        for size_bytes in PAYLOAD_SIZES {
            let whole = pool.try_take(size_bytes).unwrap().freeze();
            let part = whole.slice(0..size_bytes / 2);
            drop((whole, part.clone(), part));
        }
    };
    round();
    assert_eq!(counted(round).count_total, 0);
}

/// A server keeps thousands of these. What they hold does not depend on what they did before.
#[test]
fn an_idle_connection_holds_little() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (near, far) = tokio::io::duplex(1 << 10);
    let keys = vec![[7; 100].as_slice(); 2000];
    let pair = pair(ALGORITHMS[1], 1, 2);
    let mut ends = None;
    let info = counted(|| {
        let mut writer = Writer::new(near, pair.client.0);
        let mut reader = Reader::new(far, pair.server.1);
        runtime.block_on(async {
            for _ in 0..10 {
                for at in 0..100 {
                    let mut frame = writer.blank();
                    let which = RequestWhich::Exists(Exists { keys: List::from(&keys[..2 + at / 99 * 1998]) });
                    Request { namespace: b"tests", which }.encode(&mut frame.control).unwrap();
                    writer.push(frame).unwrap();
                }
                let reading = async {
                    for _ in 0..100 {
                        reader.next().await.unwrap().unwrap();
                    }
                    tokio::select! { biased; _ = reader.next() => panic!("no more"), () = std::future::ready(()) => {} }
                };
                let (flushed, ()) = tokio::join!(writer.flush(), reading);
                flushed.unwrap();
            }
        });
        ends = Some((writer, reader));
    });
    assert!(info.bytes_max > 250 * 1024, "the frames were large: {} bytes", info.bytes_max);
    assert!(info.bytes_current < 48 * 1024, "two idle halves hold {} bytes more", info.bytes_current);
}
