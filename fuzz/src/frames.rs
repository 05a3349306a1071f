//! Frames on an established connection: right ones, changed ones, and wrong ones under a MAC that holds.

use arbitrary::{Result, Unstructured};
use memkv_server::service::payload::inline_sizes;
use memkv_transport::receiver::{Next, Receiver};
use memkv_transport::sums::Sum;
use memkv_wire::arbitrary::request;
use memkv_wire::frame::{HEADER_SIZE_BYTES, Header};
use memkv_wire::{ControlBuf, checksum};
use zerocopy::IntoBytes as _;

use crate::pair::Pair;

const FRAMES_MAX: usize = 8;
const PAYLOAD_SIZE_BYTES_MAX: usize = 40_000;

/// A frame as it was made: what a receiver gives out must be this.
struct Sent {
    /// Where it ends in the stream.
    end: usize,
    control: Vec<u8>,
    payload: Vec<u8>,
}

pub fn run(data: &[u8]) {
    // Bytes that end too early draw nothing: there is nothing to test then.
    let _ = draw(&mut Unstructured::new(data));
}

fn draw(u: &mut Unstructured<'_>) -> Result<()> {
    let mut pair = Pair::new();
    pair.receiver.sum(inline_sizes);
    let (mut stream, mut sent) = (Vec::new(), Vec::new());
    // Whether everything in the stream so far is as the sealer made it.
    let mut right = true;
    for _ in 0..u.int_in_range(1..=FRAMES_MAX)? {
        let start = stream.len();
        let frame = match u.int_in_range(0..=5u8)? {
            0..=2 => sealed(&mut pair, u, &mut stream)?,
            3 => {
                right = false;
                forged(&pair, u, &mut stream)?
            }
            4 => {
                let frame = sealed(&mut pair, u, &mut stream)?;
                let at = start + u.choose_index(stream.len() - start)?;
                let change = u.arbitrary::<u8>()?;
                stream[at] ^= change;
                right &= change == 0;
                frame
            }
            _ => {
                let at = u.choose_index(stream.len().max(1))?.min(stream.len());
                stream.truncate(at);
                sent.retain(|frame: &Sent| frame.end <= at);
                right = false;
                continue;
            }
        };
        if right {
            sent.push(frame);
        }
    }
    let received = receive(&mut pair.receiver, &stream, u, &sent)?;
    assert!(received >= sent.len(), "{received} of {} right frames arrived", sent.len());
    assert!(!right || received == sent.len());
    Ok(())
}

/// A frame as clients make it.
fn sealed(pair: &mut Pair, u: &mut Unstructured<'_>, stream: &mut Vec<u8>) -> Result<Sent> {
    let mut control = ControlBuf::new();
    if request(u, &mut control).is_err() {
        return Err(arbitrary::Error::IncorrectFormat);
    }
    let length = u.int_in_range(0..=PAYLOAD_SIZE_BYTES_MAX)?;
    let payload = vec![u.arbitrary::<u8>()?; length];
    let (id, last) = (u.arbitrary()?, u.arbitrary()?);
    let parts: &[&[u8]] = if length == 0 { &[] } else { &[&payload] };
    let frame =
        pair.sealer.seal(id, last, &mut control, parts).expect("a message within the limits is sealed");
    frame.slices().for_each(|slice| stream.extend_from_slice(slice));
    Ok(Sent { end: stream.len(), control: control.control().to_vec(), payload })
}

/// A frame whose header is anything and whose MAC and tag hold.
fn forged(pair: &Pair, u: &mut Unstructured<'_>, stream: &mut Vec<u8>) -> Result<Sent> {
    let mut head = [0; HEADER_SIZE_BYTES];
    u.fill_buffer(&mut head[..32])?;
    let control = some_bytes(u)?;
    let payload = some_bytes(u)?;
    let Some(mut header) = Header::read(&head) else { return Err(arbitrary::Error::IncorrectFormat) };
    if u.arbitrary()? {
        // Most headers drawn from nothing stop at the first check: these get further.
        header.magic = memkv_wire::frame::MAGIC.into();
        header.version = memkv_wire::frame::VERSION;
        header.kind = 2;
        header.control_words = (control.len() as u32 / 8).into();
        header.payload_length = (payload.len() as u32).into();
        header.credits = 0.into();
        header.sequence = (pair.sealer.sequence() + u.int_in_range(0..=2)?).into();
    }
    header.mac = pair.mac.tag(&[header.signed_bytes(), &control]);
    let tag = pair.bulk.tag(&[header.as_bytes(), &payload]);
    [header.as_bytes(), &control, &payload, &tag].iter().for_each(|part| stream.extend_from_slice(part));
    Ok(Sent { end: stream.len(), control, payload })
}

fn some_bytes(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = u.int_in_range(0..=64)?.min(u.len());
    Ok(u.bytes(length)?.to_vec())
}

/// Checksums come for all of a payload's pieces or for none.
fn check_sums(sums: &[Sum], mut payload: &[u8]) {
    for sum in sums {
        let (piece, rest) = payload.split_at(sum.size_bytes as usize);
        assert_eq!(sum.checksum, checksum::block(piece));
        payload = rest;
    }
    assert!(sums.is_empty() || payload.is_empty());
}

/// Gives the stream to the receiver in parts of any size, and counts what comes out.
fn receive(receiver: &mut Receiver, stream: &[u8], u: &mut Unstructured<'_>, sent: &[Sent]) -> Result<usize> {
    let (mut at, mut count) = (0, 0);
    loop {
        loop {
            match receiver.next_frame() {
                Ok(Next::Frame(frame)) => {
                    if let Some(sent) = sent.get(count) {
                        assert_eq!(frame.control, sent.control);
                        assert_eq!(frame.payload.as_deref().unwrap_or_default(), sent.payload);
                        check_sums(frame.sums, &sent.payload);
                    }
                    count += 1;
                }
                Ok(Next::NeedBytes) => break,
                Ok(Next::Blocked { size_bytes }) => panic!("no memory for {size_bytes} bytes of {}", 8 << 20),
                Err(error) => {
                    let first = error.to_string();
                    let again = receiver.next_frame().err().map(|error| error.to_string());
                    assert_eq!(again, Some(first), "after an error nothing else comes");
                    return Ok(count);
                }
            }
        }
        if at == stream.len() {
            return Ok(count);
        }
        let space = receiver.space();
        assert!(!space.is_empty(), "a receiver that needs bytes takes them");
        let most = space.len().min(stream.len() - at);
        let part =
            if u.ratio(1, 4u8).unwrap_or(false) { u.int_in_range(1..=most).unwrap_or(most) } else { most };
        space[..part].copy_from_slice(&stream[at..at + part]);
        receiver.advance(part);
        at += part;
    }
}
