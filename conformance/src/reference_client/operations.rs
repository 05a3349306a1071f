//! The requests of one frame each way, and manifests.

use memkv_wire::checksum;
use memkv_wire::control::Message;
use memkv_wire::limits::{PAYLOAD_SIZE_BYTES_MAX, PUT_MANIFEST_RETRIES_MAX};
use memkv_wire::*;

use super::flaw::Flaw;
use super::link::{Reply, Trouble};
use super::{Client, Outgoing};
use crate::peer::session::encode;

/// One frame's message, of a reply that was received.
pub fn response<'a>(message: &'a Message<'a>) -> Result<Response<'a>, Trouble> {
    Response::decode(message).map_err(|_| Trouble::Broke("a message that cannot be read"))
}

pub fn message(reply: &Reply) -> Result<Message<'_>, Trouble> {
    Message::new(&reply.control).map_err(|_| Trouble::Broke("a message that cannot be read"))
}

impl Client {
    /// A message of one frame.
    pub fn outgoing(&self, which: RequestWhich<'_>) -> Outgoing {
        let operation = which.operation().unwrap_or(Operation::Ping);
        Outgoing { operation, frames: vec![self.frame(which, &[])] }
    }

    pub fn frame(&self, which: RequestWhich<'_>, payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (encode(&Request { namespace: &self.namespace, which }), payload.to_vec())
    }

    /// A key as it is sent.
    pub fn key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        match self.flaw() {
            Some(Flaw::KeysCut) => &key[..key.len().min(64)],
            _ => key,
        }
    }

    /// A request of one frame whose reply has one frame: what `see` makes of it, whatever its status.
    fn single<T>(
        &mut self,
        which: RequestWhich<'_>,
        see: impl FnOnce(Status, ResponseWhich<'_>) -> Option<T>,
    ) -> Result<T, Trouble> {
        let outgoing = self.outgoing(which);
        let operation = outgoing.operation;
        let replies = self.call(outgoing)?;
        let Some(reply) = replies.first() else { return self.broke("no reply") };
        let message = message(reply)?;
        let response = response(&message)?;
        let which = self.arm(operation, response.which)?;
        match see(response.status, which) {
            Some(seen) => Ok(seen),
            None => self.broke("a reply of another operation"),
        }
    }

    //= MKV-MSG-7
    pub fn arm<'a>(
        &mut self,
        operation: Operation,
        which: ResponseWhich<'a>,
    ) -> Result<ResponseWhich<'a>, Trouble> {
        match which.operation() {
            Some(found) if found == operation => Ok(which),
            _ if self.flaw() == Some(Flaw::ArmNotCompared) => Ok(operation.empty_reply()),
            _ => self.broke("a reply of another operation"),
        }
    }

    pub fn ping(&mut self) -> Result<(), Trouble> {
        let echo = 0x5a5a;
        let seen =
            self.single(RequestWhich::Ping(Ping { echo, ..Ping::default() }), |status, which| match which {
                ResponseWhich::Ping(pong) => Some((status, pong.echo)),
                _ => None,
            });
        let (status, echoed) = seen?;
        self.check(status)?;
        if echoed == echo { Ok(()) } else { self.broke("another echo") }
    }

    pub fn exists(&mut self, keys: &[Vec<u8>]) -> Result<Vec<u64>, Trouble> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| self.key(key)).collect();
        let request = RequestWhich::Exists(Exists { keys: List::from(&keys) });
        let seen = self.single(request, |status, which| match which {
            ResponseWhich::Exists(reply) => Some((status, reply.lengths.iter().collect::<Vec<u64>>())),
            _ => None,
        });
        let (status, mut lengths) = seen?;
        self.check(status)?;
        if self.flaw() == Some(Flaw::ExistsReversed) {
            lengths.reverse();
        }
        if self.flaw() == Some(Flaw::ExistsPadded) {
            lengths.resize(keys.len(), 0);
        }
        if lengths.len() == keys.len() { Ok(lengths) } else { self.broke("as many lengths as keys") }
    }

    pub fn delete(&mut self, key: &[u8]) -> Result<(), Trouble> {
        let keys = [self.key(key)];
        let request = RequestWhich::Delete(Delete { keys: List::from(&keys) });
        let (status, first) = self.single(request, |status, which| match which {
            ResponseWhich::Delete(reply) => Some((status, reply.statuses.iter().next())),
            _ => None,
        })?;
        self.check(status)?;
        match first {
            Some(status) => self.check(status),
            None => self.broke("as many statuses as keys"),
        }
    }

    // ---------------------------------------------------------------- manifests

    /// The places of the chunks that are missing; none, and it is published.
    pub fn put_manifest(
        &mut self,
        name: &[u8],
        body: &[u8],
        chunks: &[(Vec<u8>, u64)],
    ) -> Result<Vec<u32>, Trouble> {
        if body.is_empty() && self.flaw() == Some(Flaw::EmptyBodyUnsent) {
            return Ok(Vec::new());
        }
        let outgoing = self.manifest(name, body, chunks);
        let replies = self.call(outgoing)?;
        let (mut places, mut last) = (Vec::new(), Status::Ok);
        for reply in &replies {
            let message = message(reply)?;
            let response = response(&message)?;
            last = response.status;
            let ResponseWhich::PutManifest(told) = self.arm(Operation::PutManifest, response.which)? else {
                return self.broke("a reply of another operation");
            };
            places.extend(told.missing);
        }
        if last == Status::MissingChunks {
            let known = places.iter().all(|place| (*place as usize) < chunks.len()) && !places.is_empty();
            return match self.flaw() {
                Some(Flaw::MissingUnsaid) => Ok(Vec::new()),
                Some(Flaw::PlacesNotChecked) => Ok(places),
                _ if known => Ok(places),
                _ => self.broke("missing chunks that were not asked about"),
            };
        }
        if last == Status::StaleGeneration && self.flaw() == Some(Flaw::StaleUnsaid) {
            return Ok(Vec::new());
        }
        self.check(last).map(|()| Vec::new())
    }

    fn manifest(&self, name: &[u8], body: &[u8], chunks: &[(Vec<u8>, u64)]) -> Outgoing {
        let sum = checksum::value_of(body);
        let references: Vec<ChunkReference<'_>> = chunks
            .iter()
            .map(|(key, length)| ChunkReference { key: self.key(key), length: *length, checksum: None })
            .collect();
        let put = |chunks| {
            RequestWhich::PutManifest(PutManifest {
                name: if self.flaw() == Some(Flaw::NamesCut) { &name[..name.len().min(1024)] } else { name },
                generation: 0,
                role: ManifestRole::Both,
                length: body.len() as u64,
                checksum: &sum,
                chunks,
            })
        };
        let mut parts = body.chunks(PAYLOAD_SIZE_BYTES_MAX as usize);
        let first = parts.next().unwrap_or_default();
        let mut frames = vec![self.frame(put(List::from(&references)), first)];
        frames.extend(parts.map(|part| self.frame(put(List::empty()), part)));
        Outgoing { operation: Operation::PutManifest, frames }
    }

    pub fn get_manifest(&mut self, name: &[u8]) -> Result<Vec<u8>, Trouble> {
        let request = self.outgoing(RequestWhich::GetManifest(GetManifest { name, lease_ms: 0 }));
        let replies = self.call(request)?;
        let (mut body, mut length, mut sum) = (Vec::new(), 0, None);
        for reply in &replies {
            let message = message(reply)?;
            let response = response(&message)?;
            self.check(response.status)?;
            let ResponseWhich::GetManifest(told) = self.arm(Operation::GetManifest, response.which)? else {
                return self.broke("a reply of another operation");
            };
            (length, sum) = (told.length, told.checksum.copied());
            body.extend_from_slice(&reply.payload);
        }
        if body.is_empty() && self.flaw() == Some(Flaw::EmptyBodyTaken) {
            return Ok(body);
        }
        if body.len() as u64 != length && self.flaw() != Some(Flaw::BodyLengthNotChecked) {
            return self.broke("a body of another length");
        }
        let whole = body.len() as u64 == length;
        let unequal = whole && sum.is_some_and(|sum| sum != checksum::value_of(&body));
        if unequal && self.flaw() != Some(Flaw::BodyChecksumNotChecked) {
            return self.broke("a body that its checksum was not made of");
        }
        Ok(body)
    }

    pub fn delete_manifest(&mut self, name: &[u8]) -> Result<(), Trouble> {
        let request = RequestWhich::DeleteManifest(DeleteManifest { name, generation: 0 });
        let status = self.single(request, |status, _| Some(status))?;
        self.check(status)
    }

    pub fn list(&mut self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Trouble> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        loop {
            let cursor = names.last().cloned().unwrap_or_default();
            let request = ListManifests { prefix, cursor: &cursor, count_max: 0 };
            let (status, page, more) =
                self.single(RequestWhich::ListManifests(request), |status, which| match which {
                    ResponseWhich::ListManifests(reply) => {
                        let names: Vec<Vec<u8>> =
                            reply.entries.iter().map(|entry| entry.name.to_vec()).collect();
                        Some((status, names, reply.more))
                    }
                    _ => None,
                })?;
            self.check(status)?;
            let empty = page.is_empty();
            names.extend(page);
            if !more || empty || self.flaw() == Some(Flaw::OnePage) {
                return Ok(names);
            }
        }
    }

    /// Publishes a manifest of these values, and writes those that are missing.
    //= MKV-PUT-3
    pub fn save(&mut self, name: &[u8], body: &[u8], pairs: &[Vec<u8>]) -> Result<(), Trouble> {
        let chunks: Vec<(Vec<u8>, u64)> =
            pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].len() as u64)).collect();
        let mut tries = 0;
        loop {
            let named = if self.flaw() == Some(Flaw::SavesWithoutChunks) { &[] } else { chunks.as_slice() };
            let missing = self.put_manifest(name, body, named)?;
            if missing.is_empty() {
                return Ok(());
            }
            tries += 1;
            let enough = match self.flaw() {
                Some(Flaw::SavesForEver) => 100,
                Some(Flaw::SavesOnceTooOften) => PUT_MANIFEST_RETRIES_MAX + 1,
                _ => PUT_MANIFEST_RETRIES_MAX,
            };
            if tries > enough {
                return Err(Trouble::Refused(Status::MissingChunks));
            }
            for place in missing {
                let place = place as usize * 2;
                let (Some(key), Some(value)) = (pairs.get(place), pairs.get(place + 1)) else {
                    return Err(Trouble::Misuse);
                };
                self.put(key, value)?;
            }
        }
    }
}
