//! `Exists` and `Delete`: lists of keys, and one answer for each.

use memkv_wire::{Delete, Exists, List, Request, RequestWhich, ResponseWhich, Status, limits};

use super::{
    CONTROL_FILL_SIZE_BYTES, FRAME_ITEMS_MAX, check_items, check_key, data_size_bytes, refusal, with_response,
};
use crate::core::{Message, Reply};
use crate::error::{Error, PeerMisbehaved, StorageError};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysOperation {
    /// What is stored.
    Exists,
    /// Remove.
    Delete,
}

/// Fills a message with keys.
pub fn keys(
    message: &mut Message,
    namespace: &[u8],
    operation: KeysOperation,
    keys: &[&[u8]],
) -> Result<(), Error> {
    check_items(keys.len())?;
    let mut rest = keys;
    while !rest.is_empty() {
        let mut control_size_bytes = 0;
        let mut count = 0;
        for key in rest.iter().take(FRAME_ITEMS_MAX) {
            check_key(key)?;
            control_size_bytes += 8 + data_size_bytes(key.len());
            if control_size_bytes > CONTROL_FILL_SIZE_BYTES {
                break;
            }
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        let keys = List::from(now);
        let which = match operation {
            KeysOperation::Exists => RequestWhich::Exists(Exists { keys }),
            KeysOperation::Delete => RequestWhich::Delete(Delete { keys }),
        };
        message.push(&Request { namespace, which })?;
        rest = later;
    }
    Ok(())
}

/// The answers, being put together: they come in the order of the keys.
#[derive(Debug)]
pub struct KeysReplies<T> {
    count: usize,
    answers: Vec<T>,
    refused: Option<StorageError>,
}

impl<T> KeysReplies<T> {
    /// For so many keys.
    pub fn new(count: usize) -> Self {
        Self { count, answers: Vec::with_capacity(count), refused: None }
    }

    /// Forgets the frames of an attempt that was cut off.
    pub fn restart(&mut self) {
        self.answers.clear();
        self.refused = None;
    }

    /// The whole reply.
    //= MKV-EX-1
    pub fn finish(self) -> Result<Vec<T>, Error> {
        if let Some(refused) = self.refused {
            return Err(refused.into());
        }
        if self.answers.len() != self.count {
            return Err(PeerMisbehaved::Results.into());
        }
        Ok(self.answers)
    }

    fn add(&mut self, answers: impl Iterator<Item = T>) -> Result<(), PeerMisbehaved> {
        self.answers.extend(answers);
        if self.answers.len() > self.count { Err(PeerMisbehaved::Results) } else { Ok(()) }
    }
}

impl KeysReplies<u64> {
    /// Takes a frame of a reply to `Exists`: the lengths of the values, 0 for what is not stored.
    pub fn frame(&mut self, frame: &Reply) -> Result<(), PeerMisbehaved> {
        with_response(frame, |response| match response.which {
            _ if response.status != Status::Ok => {
                self.refused = Some(refusal(response));
                Ok(())
            }
            ResponseWhich::Exists(reply)
                if reply.lengths.iter().any(|length| length > limits::VALUE_SIZE_BYTES_MAX) =>
            {
                Err(PeerMisbehaved::Results)
            }
            ResponseWhich::Exists(reply) => self.add(reply.lengths.iter()),
            _ => Err(PeerMisbehaved::WrongOperation),
        })
    }
}

impl KeysReplies<Status> {
    /// Takes a frame of a reply to `Delete`.
    pub fn frame(&mut self, frame: &Reply) -> Result<(), PeerMisbehaved> {
        with_response(frame, |response| match response.which {
            _ if response.status != Status::Ok => {
                self.refused = Some(refusal(response));
                Ok(())
            }
            ResponseWhich::Delete(reply) => self.add(reply.statuses.iter()),
            _ => Err(PeerMisbehaved::WrongOperation),
        })
    }
}
