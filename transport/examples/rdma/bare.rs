//! The verbs alone: a ping-pong of SENDs, and READs or WRITEs with so many under way. Driven by events, as what is compared with them.

#![expect(unsafe_code, reason = "looks at memory that a device fills, and waits for its events")]

use std::sync::Arc;
use std::time::Instant;

use memkv_transport::rdma::Device;
use memkv_transport::rdma::bare::{Ended, Side};
use memkv_transport::session::QueuePairIdentity;
use memkv_wire::mac::BulkKey;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Failure;
use crate::table::{Bulk, LARGE_SIZE_BYTES, Moved, ROUNDS, Way, look, microseconds};

/// The bytes of each message of a round trip, there and back.
pub type Sizes = (usize, usize);

/// Slots 0 to 7 are received into, slot 8 is sent from.
const RECEIVES: usize = 8;
const SMALL_SLOT_SIZE_BYTES: usize = 4096;

fn ping_pong(device: &Arc<Device>) -> Result<[Side; 2], Failure> {
    let mut sides = Side::connected(device, RECEIVES + 1, SMALL_SLOT_SIZE_BYTES)?;
    sides.iter_mut().try_for_each(expect_messages)?;
    Ok(sides)
}

fn expect_messages(side: &mut Side) -> Result<(), Failure> {
    (0..RECEIVES).try_for_each(|slot| side.receive(slot))?;
    Ok(side.arm()?)
}

/// One end, which blocks in the kernel until its events come, and the other end elsewhere.
pub fn connected(
    device: &Arc<Device>,
    exchange: impl FnOnce(QueuePairIdentity) -> Result<QueuePairIdentity, Failure>,
) -> Result<Side, Failure> {
    let mut side = Side::alone(device, RECEIVES + 1, SMALL_SLOT_SIZE_BYTES)?;
    let peer = exchange(side.identity())?;
    side.connect(&peer)?;
    expect_messages(&mut side)?;
    side.block()?;
    Ok(side)
}

/// Takes what is there and posts the receives again; how many messages came.
fn take_messages(side: &mut Side) -> Result<usize, Failure> {
    let mut came = Vec::with_capacity(RECEIVES);
    side.take(|ended| {
        if let Ended::Received(slot) = ended {
            came.push(slot);
        }
    })?;
    came.iter().try_for_each(|slot| side.receive(*slot))?;
    Ok(came.len())
}

/// A side that a task waits for.
struct Driven(AsyncFd<Side>);

impl Driven {
    fn new(side: Side) -> Result<Driven, Failure> {
        // SAFETY: the channel's file is open, and stays the same one, for as long as the side lives.
        Ok(Driven(unsafe { AsyncFd::register_with_interest(side, Interest::READABLE) }?))
    }

    /// Waits for an event. There is one at most, for the next is asked for here.
    async fn event(&mut self) -> Result<(), Failure> {
        let mut ready = self.0.readable().await?;
        ready.get_inner().take_event()?;
        ready.clear_ready();
        Ok(self.0.get_ref().arm()?)
    }

    async fn message(&mut self) -> Result<(), Failure> {
        while take_messages(self.0.get_mut())? == 0 {
            self.event().await?;
        }
        Ok(())
    }
}

/// Microseconds of a round trip between two tasks of one thread.
pub async fn round_trip_of_tasks(device: &Arc<Device>, (there, back): Sizes) -> Result<f64, Failure> {
    let [near, far] = ping_pong(device)?;
    let (mut near, mut far) = (Driven::new(near)?, Driven::new(far)?);
    let echo = tokio::spawn(async move {
        for _ in 0..ROUNDS {
            far.message().await?;
            far.0.get_mut().send(RECEIVES, back)?;
        }
        Ok::<_, Failure>(far)
    });
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        near.0.get_mut().send(RECEIVES, there)?;
        near.message().await?;
    }
    let elapsed = begun.elapsed();
    echo.await??;
    Ok(microseconds(elapsed))
}

fn message(side: &mut Side) -> Result<(), Failure> {
    while take_messages(side)? == 0 {
        side.take_event()?;
        side.arm()?;
    }
    Ok(())
}

/// Asks so often and waits for each answer.
pub fn ask(side: &mut Side, rounds: u32, (there, _): Sizes) -> Result<(), Failure> {
    for _ in 0..rounds {
        side.send(RECEIVES, there)?;
        message(side)?;
    }
    Ok(())
}

pub fn answer(side: &mut Side, rounds: u32, (_, back): Sizes) -> Result<(), Failure> {
    for _ in 0..rounds {
        message(side)?;
        side.send(RECEIVES, back)?;
    }
    Ok(())
}

/// Microseconds of a round trip between two threads, each of which waits for its events in the kernel.
pub async fn round_trip_of_threads(device: &Arc<Device>, sizes: Sizes) -> Result<f64, Failure> {
    let [mut near, mut far] = ping_pong(device)?;
    near.block()?;
    far.block()?;
    let echo = std::thread::spawn(move || answer(&mut far, ROUNDS, sizes).map(|()| far));
    let begun = Instant::now();
    ask(&mut near, ROUNDS, sizes)?;
    let elapsed = begun.elapsed();
    echo.join().map_err(|_| "the other thread failed")??;
    Ok(microseconds(elapsed))
}

/// MB/s of transfers of which so many are under way at a time.
pub async fn moved(device: &Arc<Device>, bulk: Bulk, key: &BulkKey) -> Result<f64, Failure> {
    let [mut passive, active] = Side::connected(device, bulk.depth, LARGE_SIZE_BYTES)?;
    active.arm()?;
    let mut active = Driven::new(active)?;
    let begin = |active: &mut Side, passive: &mut Side, slot: usize| -> Result<(), Failure> {
        let place = passive.place(slot);
        match bulk.way {
            Way::Fetch => {
                // SAFETY: nothing is under way for the slot, of either side.
                look(key, unsafe { passive.bytes(slot) }, bulk.checked);
                active.read(slot, LARGE_SIZE_BYTES, place)?;
            }
            Way::Put => {
                // SAFETY: as above.
                look(key, unsafe { active.bytes(slot) }, bulk.checked);
                active.write(slot, LARGE_SIZE_BYTES, place)?;
            }
        }
        Ok(())
    };
    let mut moved = Moved::begin();
    for slot in 0..bulk.depth {
        begin(active.0.get_mut(), &mut passive, slot)?;
    }
    let mut begun = bulk.depth;
    while !moved.is_done() {
        let mut ended = Vec::with_capacity(bulk.depth);
        active.0.get_mut().take(|request| {
            if let Ended::Moved(slot) = request {
                ended.push(slot);
            }
        })?;
        if ended.is_empty() {
            active.event().await?;
        }
        for slot in ended {
            let target = match bulk.way {
                Way::Fetch => active.0.get_mut(),
                Way::Put => &mut passive,
            };
            // SAFETY: the slot's transfer is done, and no other was begun.
            look(key, unsafe { target.bytes(slot) }, bulk.checked);
            moved.count += 1;
            if begun < Moved::COUNT {
                begin(active.0.get_mut(), &mut passive, slot)?;
                begun += 1;
            }
        }
    }
    Ok(moved.rate())
}
