//! Addresses to listen on: TCP, a UNIX socket, or a socket that systemd has opened.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host and port, such as `127.0.0.1:8080`.
    Tcp(String),
    /// A UNIX socket, written `unix:/run/vaquita.sock`.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("a path follows `unix:`"),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
                Ok(Self::Tcp(text.into()))
            }
            None => Err("write it as HOST:PORT or unix:PATH"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(text) => f.write_str(text),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An open socket that accepts connections.
pub(crate) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, Option<PathBuf>),
}

/// An accepted connection.
pub(crate) enum Stream {
    Tcp(tokio::net::TcpStream, IpAddr),
    Unix(tokio::net::UnixStream),
}

impl Listener {
    /// Opens the sockets of several addresses. If systemd passes sockets (`LISTEN_FDS`), they
    /// replace all. An error comes with its address.
    pub fn open_all(addresses: &[Address]) -> Result<Vec<Self>, (String, io::Error)> {
        let passed = Self::from_systemd().map_err(|error| ("a socket of systemd".into(), error))?;
        if !passed.is_empty() {
            return Ok(passed);
        }
        let mut all = Vec::new();
        for address in addresses {
            all.extend(Self::open(address).map_err(|error| (address.to_string(), error))?);
        }
        Ok(all)
    }

    fn open(address: &Address) -> io::Result<Vec<Self>> {
        match address {
            Address::Tcp(text) => {
                let mut all = Vec::new();
                for address in text.to_socket_addrs()? {
                    let listener = std::net::TcpListener::bind(address)?;
                    all.push(Self::tcp(listener)?);
                }
                Ok(all)
            }
            Address::Unix(path) => {
                // A socket of an earlier run that nobody listens on.
                if std::os::unix::net::UnixStream::connect(path)
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
                {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                Ok(vec![Self::Unix(listener, Some(path.clone()))])
            }
        }
    }

    fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self::Tcp(TcpListener::from_std(listener)?, address))
    }

    fn from_systemd() -> io::Result<Vec<Self>> {
        let (mut sockets, mut all) = (ListenFd::from_env(), Vec::new());
        for index in 0..sockets.len() {
            if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
                all.push(Self::tcp(listener)?);
            } else if let Some(listener) = sockets.take_unix_listener(index)? {
                listener.set_nonblocking(true)?;
                all.push(Self::Unix(UnixListener::from_std(listener)?, None));
            }
        }
        Ok(all)
    }

    /// Whether only this machine reaches the socket.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(_, address) => address.ip().is_loopback(),
            Self::Unix(..) => true,
        }
    }

    /// The address as clients write it.
    pub fn url(&self) -> String {
        match self {
            Self::Tcp(_, address) => format!("http://{address}"),
            Self::Unix(_, Some(path)) => format!("unix:{}", path.display()),
            Self::Unix(_, None) => "a UNIX socket of systemd".into(),
        }
    }

    /// Waits for a connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, peer) = listener.accept().await?;
                // Tokens are small and must not wait for each other.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream, peer.ip().to_canonical()))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, Some(path)) = self {
            let _ = std::fs::remove_file(path); // nobody listens on it any more
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        assert_eq!("[::1]:80".parse(), Ok(Address::Tcp("[::1]:80".into())));
        assert_eq!("unix:/run/x".parse(), Ok(Address::Unix("/run/x".into())));
        for bad in ["localhost", "unix:", "1.2.3.4:99999", ""] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
