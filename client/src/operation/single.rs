//! Operations of one frame each way: any of the generated ones, by its marker type.

use memkv_wire::{Op, Request, Response, Status, control};

use super::refusal;
use crate::core::{Message, Reply};
use crate::error::{Error, PeerMisbehaved};

/// Fills a message with one request.
pub fn single<O: Op>(message: &mut Message, namespace: &[u8], request: O::Request<'_>) -> Result<(), Error> {
    message.push(&Request { namespace, which: O::wrap(request) })?;
    Ok(())
}

/// What a reply of one frame says; `see` gets it if the status is `ok`.
pub fn reply<O: Op, R>(reply: &Reply, see: impl FnOnce(O::Reply<'_>) -> R) -> Result<R, Error> {
    let message = control::Message::new(reply.control()).map_err(|_| PeerMisbehaved::Message)?;
    let response = Response::decode(&message).map_err(|_| PeerMisbehaved::Message)?;
    //= MKV-STAT-1
    if response.status != Status::Ok {
        return Err(refusal(&response).into());
    }
    Ok(see(O::reply(response.which).ok_or(PeerMisbehaved::WrongOperation)?))
}
