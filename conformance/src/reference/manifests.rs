//! The operations on manifests.

use std::sync::Arc;

use memkv_wire::checksum;
use memkv_wire::limits::{LEASE_MS_DEFAULT, LIST_ENTRIES_MAX, MANIFEST_CHUNKS_MAX, PAYLOAD_SIZE_BYTES_MAX};
use memkv_wire::*;

use super::flaw::Flaw;
use super::operations::{Out, Whole};
use super::state::{Chunk, Manifest, Namespace, State};

type Answer = Result<Out, Status>;

impl Whole<'_> {
    //= MKV-PUT-1
    //= MKV-PUT-5
    //= MKV-PUT-6
    pub fn put_manifest(&self, state: &mut State, put: &PutManifest<'_>) -> Answer {
        let body = self.body(put)?;
        let chunks = self.chunks();
        if chunks.len() > MANIFEST_CHUNKS_MAX as usize {
            return Err(Status::TooLarge);
        }
        let space = state.namespace(self.namespace, self.flaw);
        let refs = put.role == ManifestRole::Refs && self.flaw != Some(Flaw::RefsListed);
        let stored = if refs { &space.references } else { &space.manifests };
        let stored = stored.get(self.name(put.name)).cloned();
        if let Some(answer) = self.compare_generations(put, &body, stored.as_ref()) {
            return Ok(answer);
        }
        let deleted = space.deleted.get(put.name).copied().unwrap_or_default();
        if put.generation != 0 && put.generation <= deleted && self.flaw == Some(Flaw::DeletedNameNotFree) {
            return Ok(put_reply(Status::StaleGeneration, deleted, &[]));
        }
        if put.length == 0 && self.flaw == Some(Flaw::EmptyBodyRefused) {
            return Err(Status::Invalid);
        }
        let home = put.role == ManifestRole::Home && self.flaw != Some(Flaw::HomeChecksChunks);
        let checked = !home && self.flaw != Some(Flaw::MissingChunksTaken);
        if let Some(answer) = self.check_chunks(space, &chunks).filter(|_| checked) {
            if self.flaw == Some(Flaw::FailedPutDrops) {
                space.manifests.remove(put.name);
            }
            return Ok(answer);
        }
        let generation = match put.generation {
            0 if self.flaw == Some(Flaw::GenerationStays) => 1,
            0 => stored.as_ref().map_or(0, |stored| stored.generation) + 1,
            chosen => chosen,
        };
        let stale_chunks = match stored {
            Some(stored) if self.flaw == Some(Flaw::ReferencesStay) => stored.chunks,
            _ => Vec::new(),
        };
        let mut chunks = if put.role == ManifestRole::Home { Vec::new() } else { chunks };
        if self.flaw == Some(Flaw::LaterReferencesLost) {
            chunks.truncate(put.chunks.len());
        }
        let leased: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.key.clone()).collect();
        let manifest = Manifest { generation, body: Arc::new(body), chunks, stale_chunks };
        let kept = if refs { &mut space.references } else { &mut space.manifests };
        kept.insert(self.name(put.name).to_vec(), manifest);
        //= MKV-PUT-7
        for key in leased.iter().filter(|_| self.flaw != Some(Flaw::PublishedUnleased)) {
            state.lease(self.namespace, key, self.client, 0, self.flaw);
        }
        Ok(put_reply_leasing(Status::Ok, generation, &[], LEASE_MS_DEFAULT))
    }

    /// A name as it is kept.
    fn name<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        if self.flaw == Some(Flaw::NamesCut) { &name[..name.len().min(255)] } else { name }
    }

    /// The payloads of all frames, joined.
    fn body(&self, put: &PutManifest<'_>) -> Result<Vec<u8>, Status> {
        let mut parts = self.parts.iter().map(|part| part.payload);
        let mut body = parts.next().unwrap_or_default().to_vec();
        if self.flaw == Some(Flaw::BodyCutShort) {
            return Ok(body);
        }
        parts.for_each(|part| body.extend_from_slice(part));
        if body.len() as u64 != put.length {
            return Err(Status::Invalid);
        }
        let holds = checksum::value_of(&body) == *put.checksum;
        if holds || self.flaw == Some(Flaw::BodyChecksumNotChecked) {
            Ok(body)
        } else {
            Err(Status::ChecksumMismatch)
        }
    }

    fn chunks(&self) -> Vec<Chunk> {
        let lists = self.parts.iter().map(|part| match part.request.which {
            RequestWhich::PutManifest(put) => put.chunks,
            _ => List::empty(),
        });
        lists.flat_map(|list| list.iter()).map(Chunk::from).collect()
    }

    /// The answer, if the generations already decide it.
    fn compare_generations(
        &self,
        put: &PutManifest<'_>,
        body: &[u8],
        stored: Option<&Manifest>,
    ) -> Option<Out> {
        let stored = stored.filter(|_| put.generation != 0 && self.flaw != Some(Flaw::GenerationIgnored))?;
        let later = match self.flaw {
            Some(Flaw::GenerationsSigned) => put.generation as i64 > stored.generation as i64,
            Some(Flaw::SameGenerationReplaces) => put.generation >= stored.generation,
            _ => put.generation > stored.generation,
        };
        if later {
            return None;
        }
        let same = put.generation == stored.generation
            && **stored.body == *body
            && self.flaw != Some(Flaw::SameGenerationStale);
        let status = if same { Status::Ok } else { Status::StaleGeneration };
        Some(put_reply(status, stored.generation, &[]))
    }

    /// The answer, if chunks are missing or others than expected.
    fn check_chunks(&self, space: &Namespace, chunks: &[Chunk]) -> Option<Out> {
        let (mut missing, mut conflicts) = (Vec::new(), Vec::new());
        for (place, chunk) in (0..).zip(chunks) {
            match space.values.get(&chunk.key) {
                None => missing.push(place),
                Some(value) => {
                    let same = value.data.len() as u64 == chunk.length
                        && (self.flaw == Some(Flaw::ChunkChecksumNotCompared)
                            || chunk.checksum.is_none_or(|checksum| checksum == value.checksum));
                    if !same && self.flaw != Some(Flaw::ChunkLengthNotCompared) {
                        conflicts.push(place);
                    }
                }
            }
        }
        match self.flaw {
            Some(Flaw::MissingChunksOffByOne) => missing.iter_mut().for_each(|place| *place += 1),
            Some(Flaw::PlacesByFrame) => missing.iter_mut().for_each(|place| self.count_by_frame(place)),
            _ => {}
        }
        match (conflicts.is_empty(), missing.is_empty()) {
            (false, _) => Some(put_reply(Status::Conflict, 0, &conflicts)),
            (true, false) => Some(put_reply(Status::MissingChunks, 0, &missing)),
            (true, true) => None,
        }
    }

    /// Counts a place from its own frame's first one: the mistake of [`Flaw::PlacesByFrame`].
    fn count_by_frame(&self, place: &mut u32) {
        for part in self.parts {
            let RequestWhich::PutManifest(put) = part.request.which else { return };
            if (*place as usize) < put.chunks.len() {
                return;
            }
            *place -= put.chunks.len() as u32;
        }
    }

    pub fn get_manifest(&self, state: &mut State, get: &GetManifest<'_>) -> Answer {
        let space = state.namespace(self.namespace, self.flaw);
        let manifest = space.manifests.get(self.name(get.name)).ok_or(Status::NotFound)?;
        let sum = checksum::value_of(&manifest.body);
        let body = self.body_told(&manifest.body);
        let reply = GetManifestReply {
            generation: if self.flaw == Some(Flaw::GenerationUntold) { 0 } else { manifest.generation },
            length: manifest.body.len() as u64,
            checksum: Some(&sum),
            lease_ms: LEASE_MS_DEFAULT,
        };
        let mut out = Out::default();
        for part in body.chunks(PAYLOAD_SIZE_BYTES_MAX as usize) {
            out.push(Status::Ok, ResponseWhich::GetManifest(reply), part);
        }
        if body.is_empty() {
            out.push(Status::Ok, ResponseWhich::GetManifest(reply), &[]);
        }
        let full = body.len().is_multiple_of(PAYLOAD_SIZE_BYTES_MAX as usize) && out.frames.len() > 1;
        if full && self.flaw == Some(Flaw::BodyOfFullFramesShort) {
            out.frames.pop();
        }
        Ok(out)
    }

    fn body_told(&self, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        match (self.flaw, body.last_mut()) {
            (Some(Flaw::BodyTooShort), Some(_)) => drop(body.pop()),
            (Some(Flaw::BodyMissing), _) => body.clear(),
            (Some(Flaw::BodyOtherBytes), Some(last)) => *last ^= 1,
            _ => {}
        }
        body
    }

    //= MKV-DELM-2
    pub fn delete_manifest(&self, state: &mut State, delete: &DeleteManifest<'_>) -> Answer {
        let space = state.namespace(self.namespace, self.flaw);
        let stored = space.manifests.get(delete.name).or_else(|| space.references.get(delete.name));
        let generation = match stored {
            None if self.flaw == Some(Flaw::DeleteManifestOfMissing) => 1,
            stored => stored.ok_or(Status::NotFound)?.generation,
        };
        let mut out = Out::default();
        let reply = ResponseWhich::DeleteManifest(DeleteManifestReply { generation });
        let later = delete.generation != 0
            && (generation > delete.generation
                || generation == delete.generation && self.flaw == Some(Flaw::DeleteOfSameGenerationStale));
        if later && self.flaw != Some(Flaw::DeleteIgnoresGeneration) {
            out.push(Status::StaleGeneration, reply, &[]);
            return Ok(out);
        }
        let removed = space.manifests.remove(delete.name);
        space.references.remove(delete.name);
        if self.flaw == Some(Flaw::DeletedNameNotFree) {
            space.deleted.insert(delete.name.to_vec(), generation);
        }
        if let (Some(Flaw::ReferencesNotCounted), Some(removed)) = (self.flaw, removed) {
            for manifest in space.manifests.values_mut() {
                manifest.chunks.retain(|chunk| !removed.chunks.contains(chunk));
            }
        }
        out.push(Status::Ok, reply, &[]);
        Ok(out)
    }

    //= MKV-LIST-1
    pub fn list_manifests(&self, state: &mut State, list: &ListManifests<'_>) -> Answer {
        let space = state.namespace(self.namespace, self.flaw);
        let wanted = |name: &[u8]| {
            let after = match self.flaw {
                Some(Flaw::ListRepeatsCursor) => list.cursor.is_empty() || name >= list.cursor,
                Some(Flaw::ListOrderSigned) => list.cursor.is_empty() || signed(name) > signed(list.cursor),
                Some(Flaw::ListCursorMustExist) if !space.manifests.contains_key(list.cursor) => {
                    list.cursor.is_empty()
                }
                _ => list.cursor.is_empty() || name > list.cursor,
            };
            after && (name.starts_with(list.prefix) || self.flaw == Some(Flaw::ListIgnoresPrefix))
        };
        let all = list.count_max == 0 || self.flaw == Some(Flaw::CountMaxIgnored);
        let count_max = if all { LIST_ENTRIES_MAX } else { list.count_max };
        // A page of the longest names is within the limit of a control message.
        let count_max = count_max.min(128) as usize;
        let mut found: Vec<_> = space.manifests.iter().filter(|(name, _)| wanted(name)).collect();
        if self.flaw == Some(Flaw::ListOrderSigned) {
            found.sort_by_key(|(name, _)| signed(name));
        }
        let entry = |found: &(&Vec<u8>, &Manifest)| (found.0.clone(), found.1.clone());
        let mut page: Vec<(Vec<u8>, Manifest)> = found.iter().take(count_max).map(entry).collect();
        if self.flaw == Some(Flaw::ListUnsorted) {
            page.reverse();
        }
        let entries: Vec<ManifestEntry<'_>> = page
            .iter()
            .map(|(name, manifest)| ManifestEntry {
                name,
                generation: manifest.generation,
                length: manifest.body.len() as u64,
                chunk_count: match self.flaw {
                    Some(Flaw::ListCountsWrong) => 0,
                    _ => manifest.chunks.len() as u32,
                },
                chunk_bytes: manifest.chunks.iter().map(|chunk| chunk.length).sum(),
            })
            .collect();
        let mut out = Out::default();
        let more = match self.flaw {
            Some(Flaw::ListMoreUnsaid) => false,
            Some(Flaw::ListLastAloneLost) => found.len() > count_max + 1,
            _ => found.len() > count_max,
        };
        let reply = ListManifestsReply { entries: List::from(&entries), more };
        out.push(Status::Ok, ResponseWhich::ListManifests(reply), &[]);
        Ok(out)
    }
}

fn signed(name: &[u8]) -> Vec<i8> {
    name.iter().map(|byte| *byte as i8).collect()
}

/// A reply to a PutManifest that published nothing new.
pub fn put_reply(status: Status, generation: u64, places: &[u32]) -> Out {
    put_reply_leasing(status, generation, places, if status == Status::Ok { 0 } else { LEASE_MS_DEFAULT })
}

/// The places go into as many frames as they need.
fn put_reply_leasing(status: Status, generation: u64, places: &[u32], lease_ms: u32) -> Out {
    let mut out = Out::default();
    let mut push = |places: &[u32]| {
        let reply = PutManifestReply { generation, missing: List::from(places), lease_ms };
        out.push(status, ResponseWhich::PutManifest(reply), &[]);
    };
    places.chunks(4096).for_each(&mut push);
    if places.is_empty() {
        push(&[]);
    }
    out
}
