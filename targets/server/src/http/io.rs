//! A connection with the time limits that hyper does not have: from the first byte of a head to its
//! last, without any request, and while the client reads nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::options::Limits;

/// Whether a connection has a request that is being answered. Shared by the connection and its
/// requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy(Arc<AtomicBool>);

impl Busy {
    /// Says that a request's head was read, or that its answer has ended.
    pub fn set(&self, busy: bool) {
        self.0.store(busy, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream under [`Limits`].
pub(crate) struct Timed<T> {
    inner: T,
    busy: Busy,
    head_time: Duration,
    idle_time: Duration,
    stall_time: Duration,
    /// When a head must be complete; `None` while a request is answered.
    head: Option<Pin<Box<Sleep>>>,
    /// Whether bytes of a head have arrived.
    begun: bool,
    /// When a write must have progressed; `None` while none waits.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<T> Timed<T> {
    /// Wraps a stream.
    pub fn new(inner: T, busy: Busy, limits: &Limits) -> Self {
        let Limits { head_time, idle_time, stall_time, .. } = *limits;
        Self {
            inner,
            busy,
            head_time,
            idle_time,
            stall_time,
            head: None,
            begun: false,
            stall: None,
        }
    }

    /// Fails if no head arrived in time.
    fn check_head(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.busy.get() {
            (self.head, self.begun) = (None, false);
            return Ok(());
        }
        let time = if self.begun { self.head_time } else { self.idle_time };
        let head = self.head.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + time)));
        match head.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Fails if the client has read nothing for too long.
    fn check_stall(&mut self, cx: &mut Context<'_>, blocked: bool) -> io::Result<()> {
        if !blocked {
            self.stall = None;
            return Ok(());
        }
        let until = Instant::now() + self.stall_time;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep_until(until)));
        match stall.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        if polled.is_ready() && !this.busy.get() && !this.begun {
            // The first byte of a head: from here on, it has less time.
            (this.begun, this.head) = (true, None);
        }
        this.check_head(cx)?;
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.check_stall(cx, polled.is_pending())?;
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.check_stall(cx, polled.is_pending())?;
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
