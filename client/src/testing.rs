//! A server in the memory of a test: it answers whole messages, with no sockets and no storage. [`host`] puts one behind a socket.

pub mod host;

use std::collections::{BTreeMap, HashMap, HashSet};

use memkv_transport::buf::{Buf, BufMut};
use memkv_wire::{
    BatchReadReply, BatchWriteReply, ControlBuf, DeleteReply, ExistsReply, GetManifestReply, List, Message,
    Operation, Piece, PieceWhich, PingReply, PutManifestReply, ReadReply, ReadResult, Request, RequestWhich,
    Response, ResponseWhich, Status, WriteReply, WriteResult, checksum,
};

/// A frame as it would be on the wire, without its header.
#[derive(Debug, Clone)]
pub struct TestFrame {
    pub control: Vec<u8>,
    pub payload: Option<Buf>,
    pub last: bool,
}

#[derive(Debug, Default)]
pub struct FakeServer {
    pub values: HashMap<Vec<u8>, Vec<u8>>,
    pub manifests: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    /// Messages answered, by operation.
    pub answered: Vec<Operation>,
    /// Statuses to answer the next messages with, before any that mean something.
    pub refusals: Vec<(Status, u32)>,
    /// Bytes of each payload of a reply.
    pub reply_payload_size_bytes: usize,
    /// Pieces to flip a bit in.
    pub damages: usize,
}

/// Bytes in a buffer of their own.
pub fn buf(bytes: &[u8]) -> Buf {
    let mut buffer = BufMut::unpooled(bytes.len()).expect("a small buffer");
    buffer.copy_from_slice(bytes);
    buffer.freeze()
}

pub fn response(status: Status, retry_after_ms: u32, which: ResponseWhich<'_>) -> Vec<u8> {
    let mut control = ControlBuf::new();
    let response = Response { status, retry_after_ms, detail: "", which };
    response.encode(&mut control).expect("a response within bounds");
    control.control().to_vec()
}

pub fn only(status: Status, retry_after_ms: u32, which: ResponseWhich<'_>) -> Vec<TestFrame> {
    vec![TestFrame { control: response(status, retry_after_ms, which), payload: None, last: true }]
}

impl FakeServer {
    pub fn new() -> Self {
        Self { reply_payload_size_bytes: 1 << 20, ..Self::default() }
    }

    /// The reply to a whole message.
    pub fn answer(&mut self, frames: &[TestFrame]) -> Vec<TestFrame> {
        let messages: Vec<_> =
            frames.iter().map(|f| Message::new(&f.control).expect("whole words")).collect();
        let requests: Vec<_> = messages.iter().map(|m| Request::decode(m).expect("a request")).collect();
        let operation = requests[0].which.operation().expect("a known operation");
        if let Some((status, retry_after_ms)) = self.refusals.pop() {
            return only(status, retry_after_ms, operation.empty_reply());
        }
        self.answered.push(operation);
        let payloads: Vec<&[u8]> = frames.iter().map(|f| f.payload.as_deref().unwrap_or(&[])).collect();
        match requests[0].which {
            RequestWhich::Ping(ping) => {
                only(Status::Ok, 0, ResponseWhich::Ping(PingReply { echo: ping.echo, uptime_ms: 1 }))
            }
            RequestWhich::BatchWrite(_) => self.batch_write(&requests, &payloads),
            RequestWhich::Write(_) => self.write(&requests, &payloads),
            RequestWhich::BatchRead(_) => self.batch_read(&requests),
            RequestWhich::Read(ask) => self.read(ask.key, ask.offset, ask.length),
            RequestWhich::Exists(_) => self.exists(&requests),
            RequestWhich::Delete(_) => self.delete(&requests),
            RequestWhich::PutManifest(_) => self.put_manifest(&requests, &payloads),
            RequestWhich::GetManifest(ask) => self.get_manifest(ask.name),
            _ => only(Status::Ok, 0, operation.empty_reply()),
        }
    }

    fn batch_write(&mut self, requests: &[Request<'_>], payloads: &[&[u8]]) -> Vec<TestFrame> {
        let mut items: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut covered = HashSet::new();
        for (request, mut payload) in requests.iter().zip(payloads.iter().copied()) {
            let RequestWhich::BatchWrite(part) = request.which else { panic!("one operation") };
            items.extend(part.items.iter().map(|item| (item.key.to_vec(), vec![0; item.length as usize])));
            for piece in part.pieces.iter() {
                let bytes = payload.split_off(..piece.length as usize).expect("pieces within the payload");
                assert_eq!(piece.checksum, Some(&checksum::block(bytes)));
                assert_eq!(piece.offset % (1 << 20), 0);
                assert!(covered.insert((piece.index, piece.offset)), "pieces cover a value once");
                let value = &mut items[piece.index as usize].1;
                let start = piece.offset as usize;
                let end = value.len().min(start + (1 << 20));
                value[start..end].copy_from_slice(bytes);
            }
            assert!(payload.is_empty(), "the pieces make up the payload");
        }
        let blocks: usize = items.iter().map(|(_, value)| value.len().div_ceil(1 << 20)).sum();
        assert_eq!(covered.len(), blocks, "the pieces cover every value");
        let mut results = Vec::new();
        for (index, (key, bytes)) in items.iter().enumerate() {
            let other = self.values.get(key).is_some_and(|stored| stored != bytes);
            let status = if other { Status::Conflict } else { Status::Ok };
            self.values.entry(key.clone()).or_insert_with(|| bytes.clone());
            results.push(WriteResult { index: index as u32, status });
        }
        let half = results.len() / 2;
        let frame = |results: &[WriteResult], last| {
            let which = ResponseWhich::BatchWrite(BatchWriteReply { results: List::from(results) });
            TestFrame { control: response(Status::Ok, 0, which), payload: None, last }
        };
        vec![frame(&results[half..], false), frame(&results[..half], true)]
    }

    fn write(&mut self, requests: &[Request<'_>], payloads: &[&[u8]]) -> Vec<TestFrame> {
        let RequestWhich::Write(first) = requests[0].which else { panic!("one operation") };
        let bytes = payloads.concat();
        assert_eq!(bytes.len() as u64, first.length);
        let status = match self.values.entry(first.key.to_vec()).or_insert(bytes.clone()) {
            stored if *stored == bytes => Status::Ok,
            _ => Status::Conflict,
        };
        only(status, 0, ResponseWhich::Write(WriteReply { checksum: None }))
    }

    /// The blocks of a range, as pieces.
    fn pieces(
        &mut self,
        index: u32,
        key: &[u8],
        offset: u64,
        length: u64,
    ) -> Option<(u64, [u8; 16], Vec<Cut>)> {
        let value = self.values.get(key)?;
        let blocks: Vec<_> = value.chunks(1 << 20).map(checksum::block).collect();
        let end = if length == 0 { value.len() } else { value.len().min((offset + length) as usize) };
        let mut cuts = Vec::new();
        let mut at = offset as usize;
        while at < end {
            let stop = end.min((at / (1 << 20) + 1) << 20);
            let mut bytes = value[at..stop].to_vec();
            let checksum = checksum::block(&bytes);
            if self.damages > 0 {
                self.damages -= 1;
                bytes[0] ^= 1;
            }
            cuts.push(Cut { index, offset: at as u64, bytes, checksum });
            at = stop;
        }
        Some((value.len() as u64, checksum::value(&blocks), cuts))
    }

    fn read(&mut self, key: &[u8], offset: u64, length: u64) -> Vec<TestFrame> {
        let Some((size_bytes, checksum, cuts)) = self.pieces(0, key, offset, length) else {
            return only(Status::NotFound, 0, Operation::Read.empty_reply());
        };
        // The last block first: the order is free.
        let count = cuts.len();
        let frame = |(place, cut): (usize, &Cut)| {
            let pieces = [cut.piece()];
            let reply =
                ReadReply { length: size_bytes, checksum: Some(&checksum), pieces: List::from(&pieces[..]) };
            TestFrame {
                control: response(Status::Ok, 0, ResponseWhich::Read(reply)),
                payload: Some(buf(&cut.bytes)),
                last: place + 1 == count,
            }
        };
        cuts.iter().rev().enumerate().map(frame).collect()
    }

    fn batch_read(&mut self, requests: &[Request<'_>]) -> Vec<TestFrame> {
        let mut results = Vec::new();
        let mut cuts = Vec::new();
        let items = requests.iter().flat_map(|request| match request.which {
            RequestWhich::BatchRead(part) => part.items.iter(),
            _ => panic!("one operation"),
        });
        let items: Vec<_> = items.map(|i| (i.key.to_vec(), i.offset, i.length)).collect();
        for (index, (key, offset, length)) in items.iter().enumerate() {
            let index = index as u32;
            match self.pieces(index, key, *offset, *length) {
                None => results.push((index, Status::NotFound, 0, None)),
                Some((size_bytes, checksum, own)) => {
                    results.push((index, Status::Ok, size_bytes, Some(checksum)));
                    cuts.extend(own);
                }
            }
        }
        let mut frames = Vec::new();
        let mut rest = cuts.as_slice();
        loop {
            let mut size_bytes = 0;
            let fits = |cut: &&Cut| {
                size_bytes += cut.bytes.len();
                size_bytes <= self.reply_payload_size_bytes.max(1 << 20)
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
            rest = later;
            let last = rest.is_empty();
            let pieces: Vec<_> = now.iter().map(Cut::piece).collect();
            // All results in the last frame.
            let told = results.iter().filter(|_| last).map(|(index, status, length, checksum)| ReadResult {
                index: *index,
                status: *status,
                length: *length,
                checksum: checksum.as_ref(),
            });
            let told: Vec<_> = told.collect();
            let reply = BatchReadReply { results: List::from(&told[..]), pieces: List::from(&pieces[..]) };
            let payload = now.iter().flat_map(|cut| cut.bytes.iter().copied()).collect::<Vec<_>>();
            let payload = (!payload.is_empty()).then(|| buf(&payload));
            let control = response(Status::Ok, 0, ResponseWhich::BatchRead(reply));
            frames.push(TestFrame { control, payload, last });
            if last {
                return frames;
            }
        }
    }

    fn exists(&self, requests: &[Request<'_>]) -> Vec<TestFrame> {
        let frame = |(place, request): (usize, &Request<'_>)| {
            let RequestWhich::Exists(part) = request.which else { panic!("one operation") };
            let lengths: Vec<u64> =
                part.keys.iter().map(|k| self.values.get(k).map_or(0, |v| v.len() as u64)).collect();
            let which = ResponseWhich::Exists(ExistsReply { lengths: List::from(&lengths[..]) });
            TestFrame {
                control: response(Status::Ok, 0, which),
                payload: None,
                last: place + 1 == requests.len(),
            }
        };
        requests.iter().enumerate().map(frame).collect()
    }

    fn delete(&mut self, requests: &[Request<'_>]) -> Vec<TestFrame> {
        let mut statuses = Vec::new();
        for request in requests {
            let RequestWhich::Delete(part) = request.which else { panic!("one operation") };
            let gone = |key| self.values.remove(key).map_or(Status::NotFound, |_| Status::Ok);
            statuses.extend(part.keys.iter().map(gone));
        }
        only(Status::Ok, 0, ResponseWhich::Delete(DeleteReply { statuses: List::from(&statuses[..]) }))
    }

    fn put_manifest(&mut self, requests: &[Request<'_>], payloads: &[&[u8]]) -> Vec<TestFrame> {
        let RequestWhich::PutManifest(first) = requests[0].which else { panic!("one operation") };
        let body = payloads.concat();
        assert_eq!(body.len() as u64, first.length);
        let blocks: Vec<_> = body.chunks(1 << 20).map(checksum::block).collect();
        assert_eq!(*first.checksum, checksum::value(&blocks));
        let chunks = requests.iter().flat_map(|request| match request.which {
            RequestWhich::PutManifest(part) => part.chunks.iter(),
            _ => panic!("one operation"),
        });
        let (mut missing, mut conflicts) = (Vec::new(), Vec::new());
        for (place, chunk) in chunks.enumerate() {
            match self.values.get(chunk.key) {
                None => missing.push(place as u32),
                Some(value) if value.len() as u64 != chunk.length => conflicts.push(place as u32),
                Some(_) => {}
            }
        }
        let generation = self.manifests.get(first.name).map_or(1, |(generation, _)| generation + 1);
        let (status, listed) = match (conflicts.is_empty(), missing.is_empty()) {
            (false, _) => (Status::Conflict, conflicts),
            (true, false) => (Status::MissingChunks, missing),
            (true, true) => {
                self.manifests.insert(first.name.to_vec(), (generation, body));
                (Status::Ok, Vec::new())
            }
        };
        let half = listed.len() / 2;
        let frame = |missing: &[u32], last| {
            let reply = PutManifestReply { generation, missing: List::from(missing), lease_ms: 10_000 };
            TestFrame { control: response(status, 0, ResponseWhich::PutManifest(reply)), payload: None, last }
        };
        match half {
            0 => vec![frame(&listed, true)],
            _ => vec![frame(&listed[half..], false), frame(&listed[..half], true)],
        }
    }

    fn get_manifest(&self, name: &[u8]) -> Vec<TestFrame> {
        let Some((generation, body)) = self.manifests.get(name) else {
            return only(Status::NotFound, 0, Operation::GetManifest.empty_reply());
        };
        let blocks: Vec<_> = body.chunks(1 << 20).map(checksum::block).collect();
        let checksum = checksum::value(&blocks);
        let reply = GetManifestReply {
            generation: *generation,
            length: body.len() as u64,
            checksum: Some(&checksum),
            lease_ms: 10_000,
        };
        let control = response(Status::Ok, 0, ResponseWhich::GetManifest(reply));
        if body.is_empty() {
            return vec![TestFrame { control, payload: None, last: true }];
        }
        let parts = body.chunks(self.reply_payload_size_bytes);
        let count = parts.len();
        let frame = |(place, part): (usize, &[u8])| TestFrame {
            control: control.clone(),
            payload: Some(buf(part)),
            last: place + 1 == count,
        };
        parts.enumerate().map(frame).collect()
    }
}

struct Cut {
    index: u32,
    offset: u64,
    bytes: Vec<u8>,
    checksum: [u8; 16],
}

impl Cut {
    fn piece(&self) -> Piece<'_> {
        Piece {
            index: self.index,
            offset: self.offset,
            length: self.bytes.len() as u32,
            checksum: Some(&self.checksum),
            which: PieceWhich::Inline,
        }
    }
}
