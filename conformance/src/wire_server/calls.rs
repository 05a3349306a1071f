//! The operations as cases use them, each checking what its reply must be.

use memkv_wire::checksum::{self, BLOCK_SIZE_BYTES, Checksum};
use memkv_wire::*;

use crate::case::Outcome;
use crate::peer::session::{Reply, Session, last_status};
use crate::{ensure, fail};

/// A frame to be sent: a request and its payload.
pub struct Part<'a> {
    pub which: RequestWhich<'a>,
    pub payload: &'a [u8],
}

/// Sends a message of several frames and reads its reply.
pub fn call_parts(session: &mut Session, namespace: &[u8], parts: &[Part<'_>]) -> Outcome<Vec<Reply>> {
    let id = session.new_id();
    send_parts(session, namespace, id, parts, true)?;
    session.replies(id, parts.first().and_then(|part| part.which.operation()))
}

/// Sends frames of a message; the last one ends it only if `whole`.
pub fn send_parts(
    session: &mut Session,
    namespace: &[u8],
    id: u32,
    parts: &[Part<'_>],
    whole: bool,
) -> Outcome {
    for (number, part) in (1..).zip(parts) {
        let last = whole && number == parts.len();
        let frame = session.frame(id, last, &Request { namespace, which: part.which }, part.payload);
        session.send(&frame)?;
    }
    Ok(())
}

// ---------------------------------------------------------------- writing

/// A piece of whole bytes at a place of a value.
pub fn piece<'a>(index: u32, offset: usize, bytes: &[u8], checksum: Option<&'a Checksum>) -> Piece<'a> {
    Piece { index, offset: offset as u64, length: bytes.len() as u32, checksum, which: PieceWhich::Inline }
}

/// A Write without its pieces.
pub fn write<'a>(key: &'a [u8], data: &[u8]) -> Write<'a> {
    Write { key, length: data.len() as u64, ..Write::default() }
}

/// Writes a value with all its checksums, a frame for each block, and gives the status.
pub fn put(session: &mut Session, namespace: &[u8], key: &[u8], data: &[u8]) -> Outcome<Status> {
    let sum = checksum::value_of(data);
    put_as(session, namespace, Write { checksum: Some(&sum), ..write(key, data) }, data)
}

/// The same, with scalar fields of the caller's.
pub fn put_as(session: &mut Session, namespace: &[u8], write: Write<'_>, data: &[u8]) -> Outcome<Status> {
    let sums: Vec<Checksum> = data.chunks(BLOCK_SIZE_BYTES).map(checksum::block).collect();
    let pieces: Vec<[Piece<'_>; 1]> = data
        .chunks(BLOCK_SIZE_BYTES)
        .zip(&sums)
        .enumerate()
        .map(|(block, (bytes, sum))| [piece(0, block * BLOCK_SIZE_BYTES, bytes, Some(sum))])
        .collect();
    let parts: Vec<Part<'_>> = pieces
        .iter()
        .zip(data.chunks(BLOCK_SIZE_BYTES))
        .map(|(piece, payload)| Part {
            which: RequestWhich::Write(Write { pieces: List::from(piece), ..write }),
            payload,
        })
        .collect();
    let replies = call_parts(session, namespace, &parts)?;
    let status = last_status(&replies)?;
    if let Some(reply) = replies.last().filter(|_| status == Status::Ok && write.allocation == 0) {
        let response = reply.response()?;
        let ResponseWhich::Write(told) = response.which else {
            fail!("a write was answered with another arm")
        };
        let right = told.checksum.is_none_or(|told| *told == checksum::value_of(data));
        ensure!(right, "the reply to a write has another checksum than the value");
    }
    Ok(status)
}

/// Writes a value, and expects that it is stored.
pub fn store(session: &mut Session, namespace: &[u8], key: &[u8], data: &[u8]) -> Outcome {
    let status = put(session, namespace, key, data)?;
    ensure!(status == Status::Ok, "a write of {} bytes was answered with {}", data.len(), status.name());
    Ok(())
}

/// Expects a status, and names what was asked for when it is another.
pub fn expect_status(status: Status, expected: Status, what: &str) -> Outcome {
    ensure!(status == expected, "{what} was answered with {} instead of {}", status.name(), expected.name());
    Ok(())
}

// ---------------------------------------------------------------- reading

/// Reads a range, checks everything that the reply says, and gives the bytes and the whole value's length.
pub fn get(
    session: &mut Session,
    namespace: &[u8],
    key: &[u8],
    offset: u64,
    length: u64,
) -> Outcome<Result<(Vec<u8>, u64), Status>> {
    let read = Read { key, offset, length, destination: Destination::default() };
    let replies = session.call(namespace, RequestWhich::Read(read), &[])?;
    let mut gathered = Gathered::default();
    for reply in &replies {
        let response = reply.response()?;
        if response.status != Status::Ok {
            return Ok(Err(response.status));
        }
        let ResponseWhich::Read(read) = response.which else { fail!("a read was answered with another arm") };
        gathered.add(read.pieces, &reply.payload)?;
        gathered.tell(read.length, read.checksum)?;
    }
    let total = gathered.length;
    ensure!(offset < total, "a read from {offset} on gave a part of a value of {total} bytes");
    let end = if length == 0 { total } else { total.min(offset + length) };
    let bytes = gathered.join(0, offset, end)?;
    if offset == 0 && end == total {
        let right = gathered.checksum.is_none_or(|told| told == checksum::value_of(&bytes));
        ensure!(right, "a read gave another checksum than that of the value it gave");
    }
    Ok(Ok((bytes, total)))
}

/// The pieces of a reply.
#[derive(Default)]
pub struct Gathered {
    pieces: Vec<(u32, u64, Vec<u8>)>,
    length: u64,
    checksum: Option<Checksum>,
}

impl Gathered {
    /// Cuts a frame's payload by its pieces.
    pub fn add(&mut self, pieces: List<'_, Piece<'_>>, payload: &[u8]) -> Outcome {
        let mut rest = payload;
        for piece in pieces {
            let (length, offset) = (piece.length as usize, piece.offset);
            ensure!(piece.which == PieceWhich::Inline, "a piece that was asked for inline is elsewhere");
            let Some((bytes, after)) = rest.split_at_checked(length) else {
                fail!("the pieces of a frame are longer than its payload")
            };
            let block = BLOCK_SIZE_BYTES as u64;
            let one_block = length == 0 || offset / block == (offset + length as u64 - 1) / block;
            ensure!(one_block, "a piece of {length} bytes at {offset} crosses the end of a block");
            let right = piece.checksum.is_none_or(|told| *told == checksum::block(bytes));
            ensure!(right, "the checksum of a piece of {length} bytes at {offset} does not hold");
            self.pieces.push((piece.index, offset, bytes.to_vec()));
            rest = after;
        }
        ensure!(rest.is_empty(), "a payload has {} bytes more than its pieces", rest.len());
        Ok(())
    }

    fn tell(&mut self, length: u64, checksum: Option<&Checksum>) -> Outcome {
        let same = self.length == 0 || self.length == length;
        ensure!(same, "two frames of a reply tell different lengths of the value");
        self.length = length;
        self.checksum = checksum.copied().or(self.checksum);
        Ok(())
    }

    /// The bytes of one item's range, each of them there exactly once.
    pub fn join(&mut self, index: u32, start: u64, end: u64) -> Outcome<Vec<u8>> {
        self.pieces.sort_by_key(|(index, offset, _)| (*index, *offset));
        let (mut bytes, mut at) = (Vec::new(), start);
        for (_, offset, piece) in self.pieces.iter().filter(|(of, _, _)| *of == index) {
            ensure!(*offset == at, "a reply has a piece at {offset} where one at {at} belongs");
            bytes.extend_from_slice(piece);
            at += piece.len() as u64;
        }
        ensure!(at == end, "the pieces of a reply end at {at} instead of {end}");
        Ok(bytes)
    }
}

/// Expects a value to be stored as it is.
pub fn expect_value(session: &mut Session, namespace: &[u8], key: &[u8], data: &[u8]) -> Outcome {
    match get(session, namespace, key, 0, 0)? {
        Ok((bytes, _)) => ensure!(bytes == data, "a read gave other bytes than were written"),
        Err(status) => fail!("a read of a stored value was answered with {}", status.name()),
    }
    Ok(())
}

/// Expects a key to be unknown: to a read, to exists and to lookup.
pub fn expect_absent(session: &mut Session, namespace: &[u8], key: &[u8]) -> Outcome {
    match get(session, namespace, key, 0, 0)? {
        Ok((bytes, _)) => fail!("a read of what is not stored gave {} bytes", bytes.len()),
        Err(status) => expect_status(status, Status::NotFound, "a read of what is not stored")?,
    }
    ensure!(lengths(session, namespace, &[key])? == [0], "exists tells a length of what is not stored");
    let status = session.status(namespace, RequestWhich::Lookup(Lookup { key, lease_ms: 0 }), &[])?;
    expect_status(status, Status::NotFound, "a lookup of what is not stored")
}

/// What exists tells of these keys.
pub fn lengths(session: &mut Session, namespace: &[u8], keys: &[&[u8]]) -> Outcome<Vec<u64>> {
    let exists = Exists { keys: List::from(keys) };
    let replies = session.call(namespace, RequestWhich::Exists(exists), &[])?;
    let mut lengths = Vec::new();
    for reply in &replies {
        let response = reply.response()?;
        expect_status(response.status, Status::Ok, "exists")?;
        let ResponseWhich::Exists(told) = response.which else {
            fail!("exists was answered with another arm")
        };
        lengths.extend(told.lengths.iter());
    }
    ensure!(lengths.len() == keys.len(), "exists of {} keys has {} answers", keys.len(), lengths.len());
    Ok(lengths)
}

/// What delete tells of these keys.
pub fn delete(session: &mut Session, namespace: &[u8], keys: &[&[u8]]) -> Outcome<Vec<Status>> {
    let delete = Delete { keys: List::from(keys) };
    let replies = session.call(namespace, RequestWhich::Delete(delete), &[])?;
    let mut statuses = Vec::new();
    for reply in &replies {
        let response = reply.response()?;
        expect_status(response.status, Status::Ok, "delete")?;
        let ResponseWhich::Delete(told) = response.which else {
            fail!("delete was answered with another arm")
        };
        statuses.extend(told.statuses.iter());
    }
    ensure!(statuses.len() == keys.len(), "delete of {} keys has {} answers", keys.len(), statuses.len());
    Ok(statuses)
}

// ---------------------------------------------------------------- manifests

/// What PutManifest came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    pub status: Status,
    pub generation: u64,
    /// In the order they were told.
    pub places: Vec<u32>,
    pub lease_ms: u32,
}

/// A PutManifest without its chunks and its checksum.
pub struct Manifest<'a> {
    pub name: &'a [u8],
    pub generation: u64,
    pub role: ManifestRole,
    pub body: &'a [u8],
    pub chunks: &'a [ChunkReference<'a>],
}

impl<'a> Manifest<'a> {
    pub fn new(name: &'a [u8], body: &'a [u8], chunks: &'a [ChunkReference<'a>]) -> Manifest<'a> {
        Manifest { name, generation: 0, role: ManifestRole::Both, body, chunks }
    }
}

/// Publishes a manifest, its body in frames of at most a payload, all its chunks in the first.
pub fn publish(session: &mut Session, namespace: &[u8], manifest: &Manifest<'_>) -> Outcome<Published> {
    publish_as(session, namespace, manifest, &checksum::value_of(manifest.body))
}

pub fn publish_as(
    session: &mut Session,
    namespace: &[u8],
    manifest: &Manifest<'_>,
    checksum: &Checksum,
) -> Outcome<Published> {
    let Manifest { name, generation, role, body, chunks } = *manifest;
    let put =
        PutManifest { name, generation, role, length: body.len() as u64, checksum, chunks: List::empty() };
    let mut payloads: Vec<&[u8]> = body.chunks(limits::PAYLOAD_SIZE_BYTES_MAX as usize).collect();
    if payloads.is_empty() {
        payloads.push(&[]);
    }
    let parts: Vec<Part<'_>> = payloads
        .iter()
        .enumerate()
        .map(|(number, payload)| Part {
            which: RequestWhich::PutManifest(PutManifest {
                chunks: if number == 0 { List::from(chunks) } else { List::empty() },
                ..put
            }),
            payload,
        })
        .collect();
    published(&call_parts(session, namespace, &parts)?)
}

pub fn published(replies: &[Reply]) -> Outcome<Published> {
    let mut published =
        Published { status: last_status(replies)?, generation: 0, places: Vec::new(), lease_ms: 0 };
    for reply in replies {
        let response = reply.response()?;
        let ResponseWhich::PutManifest(told) = response.which else {
            fail!("a manifest was answered with another arm")
        };
        (published.generation, published.lease_ms) = (told.generation, told.lease_ms);
        published.places.extend(told.missing.iter());
    }
    Ok(published)
}

/// Publishes, and expects that it is; gives the generation.
pub fn expect_published(session: &mut Session, namespace: &[u8], manifest: &Manifest<'_>) -> Outcome<u64> {
    let published = publish(session, namespace, manifest)?;
    expect_status(published.status, Status::Ok, "PutManifest")?;
    Ok(published.generation)
}

/// A manifest's generation and body.
pub fn fetch(
    session: &mut Session,
    namespace: &[u8],
    name: &[u8],
) -> Outcome<Result<(u64, Vec<u8>), Status>> {
    let get = GetManifest { name, lease_ms: 0 };
    let replies = session.call(namespace, RequestWhich::GetManifest(get), &[])?;
    let (mut body, mut generation, mut length, mut sum) = (Vec::new(), 0, 0, None);
    for reply in &replies {
        let response = reply.response()?;
        if response.status != Status::Ok {
            return Ok(Err(response.status));
        }
        let ResponseWhich::GetManifest(told) = response.which else {
            fail!("GetManifest was answered with another arm")
        };
        body.extend_from_slice(&reply.payload);
        (generation, length) = (told.generation, told.length);
        sum = told.checksum.copied().or(sum);
    }
    ensure!(body.len() as u64 == length, "GetManifest tells {length} bytes and gives {}", body.len());
    let right = sum.is_none_or(|sum| sum == checksum::value_of(&body));
    ensure!(right, "GetManifest gives another checksum than that of the body");
    Ok(Ok((generation, body)))
}

pub fn expect_manifest(
    session: &mut Session,
    namespace: &[u8],
    name: &[u8],
    expected: (u64, &[u8]),
) -> Outcome {
    match fetch(session, namespace, name)? {
        Ok((generation, body)) => {
            ensure!(body == expected.1, "GetManifest gave another body");
            ensure!(generation == expected.0, "GetManifest gave generation {generation}, not {}", expected.0);
            Ok(())
        }
        Err(status) => fail!("GetManifest of what is stored was answered with {}", status.name()),
    }
}

pub fn expect_no_manifest(session: &mut Session, namespace: &[u8], name: &[u8]) -> Outcome {
    match fetch(session, namespace, name)? {
        Ok((_, body)) => fail!("GetManifest of what is not stored gave {} bytes", body.len()),
        Err(status) => expect_status(status, Status::NotFound, "GetManifest of what is not stored"),
    }
}

/// Deletes a manifest, whichever generation is stored if 0, and gives the status.
pub fn remove(session: &mut Session, namespace: &[u8], name: &[u8], generation: u64) -> Outcome<Status> {
    session.status(namespace, RequestWhich::DeleteManifest(DeleteManifest { name, generation }), &[])
}

/// One page of names.
pub fn page(
    session: &mut Session,
    namespace: &[u8],
    list: ListManifests<'_>,
) -> Outcome<(Vec<Vec<u8>>, bool)> {
    let replies = session.call(namespace, RequestWhich::ListManifests(list), &[])?;
    let (mut names, mut more) = (Vec::new(), false);
    for reply in &replies {
        let response = reply.response()?;
        expect_status(response.status, Status::Ok, "ListManifests")?;
        let ResponseWhich::ListManifests(told) = response.which else {
            fail!("ListManifests was answered with another arm")
        };
        names.extend(told.entries.iter().map(|entry| entry.name.to_vec()));
        more = told.more;
    }
    Ok((names, more))
}
