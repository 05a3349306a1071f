//! The generated stubs, on a [`Core`]: any operation of one frame, by name and with its own types.

use std::marker::PhantomData;

use memkv_wire::{Caller, Op};

use super::{CallId, CallOptions, Core, Reply};
use crate::error::Error;
use crate::operation::single;

/// A core at a moment, ready to be called: `core.at(now_ms, options).exists(namespace, request)`.
#[derive(Debug)]
pub struct Calls<'c> {
    core: &'c mut Core,
    now_ms: u64,
    options: CallOptions,
}

/// A call that knows the type of its reply.
#[derive(Debug, Clone, Copy)]
pub struct Pending<O> {
    id: CallId,
    operation: PhantomData<O>,
}

impl<O: Op> Pending<O> {
    /// To ask the core for its progress.
    pub fn id(self) -> CallId {
        self.id
    }

    /// What a frame of the reply says, if its status is `ok`.
    pub fn reply<R>(self, reply: &Reply, see: impl FnOnce(O::Reply<'_>) -> R) -> Result<R, Error> {
        single::reply::<O, R>(reply, see)
    }
}

impl Core {
    /// For the generated stubs.
    pub fn at(&mut self, now_ms: u64, options: CallOptions) -> Calls<'_> {
        Calls { core: self, now_ms, options }
    }
}

impl Caller for Calls<'_> {
    /// An error says that the request breaks a bound of the specification; nothing was started.
    type Pending<O: Op> = Result<Pending<O>, Error>;

    fn call<O: Op>(&mut self, namespace: &[u8], request: O::Request<'_>) -> Self::Pending<O> {
        let mut message = self.core.message();
        single::single::<O>(&mut message, namespace, request)?;
        Ok(Pending { id: self.core.submit(self.now_ms, message, self.options), operation: PhantomData })
    }
}
