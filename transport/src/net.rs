//! The halves of a connection, whichever kind of socket it is on.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::buf::BufPool;
#[cfg(target_os = "linux")]
use crate::rdma;
use crate::session::Channel;
use crate::{local, stream};

pub type Reader = stream::Reader<ReadHalf>;
pub type Writer = stream::Writer<WriteHalf>;

/// Where a connection's bytes come from.
#[derive(Debug)]
pub enum ReadHalf {
    Tcp(OwnedReadHalf),
    Local(local::ReadHalf),
    #[cfg(target_os = "linux")]
    Rdma(rdma::ReadHalf),
}

/// Where a connection's bytes go.
#[derive(Debug)]
pub enum WriteHalf {
    Tcp(OwnedWriteHalf),
    Local(local::WriteHalf),
    #[cfg(target_os = "linux")]
    Rdma(rdma::WriteHalf),
}

pub(crate) fn halves(read: ReadHalf, write: WriteHalf, channel: Channel, pool: BufPool) -> (Reader, Writer) {
    let (sealer, receiver) = channel.split(pool);
    (stream::Reader::new(read, receiver), stream::Writer::new(write, sealer))
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ReadHalf::Tcp(half) => Pin::new(half).poll_read(context, into),
            ReadHalf::Local(half) => Pin::new(half).poll_read(context, into),
            #[cfg(target_os = "linux")]
            ReadHalf::Rdma(half) => Pin::new(half).poll_read(context, into),
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            WriteHalf::Tcp(half) => Pin::new(half).poll_write_vectored(context, slices),
            WriteHalf::Local(half) => Pin::new(half).poll_write_vectored(context, slices),
            #[cfg(target_os = "linux")]
            WriteHalf::Rdma(half) => Pin::new(half).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteHalf::Tcp(half) => Pin::new(half).poll_flush(context),
            WriteHalf::Local(half) => Pin::new(half).poll_flush(context),
            #[cfg(target_os = "linux")]
            WriteHalf::Rdma(half) => Pin::new(half).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteHalf::Tcp(half) => Pin::new(half).poll_shutdown(context),
            WriteHalf::Local(half) => Pin::new(half).poll_shutdown(context),
            #[cfg(target_os = "linux")]
            WriteHalf::Rdma(half) => Pin::new(half).poll_shutdown(context),
        }
    }
}
