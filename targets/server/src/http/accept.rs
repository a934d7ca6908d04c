//! The accept loop. `axum::serve` sets no timer, so that hyper's limits would never apply.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};

use super::io::{Busy, Timed};
use super::listen::{Listener, Stream};
use crate::options::Limits;

/// Answer to a connection above a limit.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\
    Connection: close\r\n\r\n";
/// Pause after a failure to accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the server ends.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub router: Router,
    pub limits: Limits,
    /// One permit per connection.
    pub open: Arc<Semaphore>,
    /// Becomes true when the server ends.
    pub ending: watch::Receiver<bool>,
    peers: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Acceptor {
    /// An acceptor for the requests of a router.
    pub fn new(router: Router, limits: &Limits, ending: watch::Receiver<bool>) -> Self {
        let open = Arc::new(Semaphore::new(limits.connections));
        Self { router, limits: limits.clone(), open, ending, peers: Arc::default() }
    }

    /// Accepts until the server ends.
    pub async fn run(mut self, listener: Listener) {
        loop {
            let mut ending = self.ending.clone();
            tokio::select! {
                () = ended(&mut ending) => return,
                accepted = listener.accept() => match accepted {
                    Ok(stream) => self.begin(stream),
                    Err(error) if is_of_client(&error) => {}
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
            }
        }
    }

    fn begin(&mut self, stream: Stream) {
        let permit = self.open.clone().try_acquire_owned().ok();
        let peer = match &stream {
            Stream::Tcp(_, ip) if !ip.is_loopback() => Some(*ip),
            _ => None,
        };
        let counted = Peer::count(&self.peers, peer, self.limits.connections_per_peer);
        let acceptor = self.clone();
        let work = async move {
            match (permit, counted, stream) {
                (Some(_permit), Some(_counted), Stream::Tcp(stream, _)) => {
                    acceptor.serve(stream).await
                }
                (Some(_permit), Some(_counted), Stream::Unix(stream)) => {
                    acceptor.serve(stream).await
                }
                (_, _, Stream::Tcp(stream, _)) => refuse(stream).await,
                (_, _, Stream::Unix(stream)) => refuse(stream).await,
            }
        };
        tokio::spawn(work);
    }

    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let busy = Busy::default();
        let (router, of_request) = (self.router.clone(), busy.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            of_request.set(true);
            request.extensions_mut().insert(of_request.clone());
            let router = TowerToHyperService::new(router.clone());
            hyper::service::Service::call(&router, request.map(Body::new))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // `Timed` has the shorter limit for a head that has begun.
            .header_read_timeout(self.limits.idle_time.max(self.limits.head_time))
            .max_buf_size(self.limits.head_bytes)
            // Some clients compare names of headers with their case, although HTTP has none.
            .title_case_headers(true)
            .serve_connection(TokioIo::new(Timed::new(stream, busy, &self.limits)), service);
        let mut connection = std::pin::pin!(connection);
        // An error here is the client's: it left, or was too slow.
        tokio::select! {
            _ = connection.as_mut() => {}
            () = ended(&mut self.ending) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
}

/// Waits for the end of the server.
async fn ended(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await; // the sender lives as long as the server
}

/// Tells a client above a limit to come back.
async fn refuse(mut stream: impl AsyncWrite + Unpin) {
    let said = tokio::time::timeout(Duration::from_secs(1), async {
        stream.write_all(FULL).await?;
        stream.shutdown().await
    });
    let _ = said.await; // the client need not listen
}

/// Whether accepting failed because of the client.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A counted connection of a peer.
struct Peer {
    peers: Arc<Mutex<HashMap<IpAddr, usize>>>,
    ip: Option<IpAddr>,
}

impl Peer {
    /// Counts a connection; `None` if the peer has too many. Peers of this machine are not counted:
    /// they are proxies.
    fn count(
        peers: &Arc<Mutex<HashMap<IpAddr, usize>>>,
        ip: Option<IpAddr>,
        most: usize,
    ) -> Option<Self> {
        if let Some(ip) = ip {
            let mut counts = peers.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(ip).or_default();
            if *count >= most {
                return None;
            }
            *count += 1;
        }
        Some(Self { peers: peers.clone(), ip })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let Some(ip) = self.ip else { return };
        let mut counts = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_a_peer_are_bounded_and_given_back() {
        let peers = Arc::default();
        let ip: Option<IpAddr> = Some([192, 0, 2, 1].into());
        let first = Peer::count(&peers, ip, 2);
        let second = Peer::count(&peers, ip, 2);
        assert!(first.is_some() && second.is_some());
        assert!(Peer::count(&peers, ip, 2).is_none());
        assert!(Peer::count(&peers, None, 0).is_some());
        drop(first);
        assert!(Peer::count(&peers, ip, 2).is_some());
        drop(second);
        assert!(peers.lock().unwrap().is_empty());
    }
}
