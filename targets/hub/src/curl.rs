//! One request by the system's `curl`, which brings encryption, proxies and the machine's
//! certificates. Redirects are left to the caller.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::address::Address;
use crate::error::HubError;

/// Longest headers of an answer.
const LONGEST_HEADERS: u64 = 64 << 10;
/// Bytes of curl's own messages that are read.
const MESSAGE_BYTES: u64 = 2048;

/// Options of every request: no settings of the user, no other protocols, headers before the body,
/// and an end to connections that stall.
const OPTIONS: [&str; 17] = [
    "--disable", // must be the first
    "--silent",
    "--show-error",
    "--globoff",
    "--http1.1",
    "--include",
    "--suppress-connect-headers",
    "--proto",
    "=http,https",
    "--connect-timeout",
    "20",
    "--speed-limit",
    "1",
    "--speed-time",
    "30",
    "--config",
    "-",
];

/// Status, headers and body of an answer. Dropping it ends the transfer.
pub(crate) struct Response {
    /// HTTP status.
    pub status: u16,
    headers: Vec<(String, String)>,
    body: BufReader<ChildStdout>,
    child: Child,
}

/// Sends a request.
pub(crate) fn get(
    address: &Address,
    range: Option<&Range<u64>>,
    token: Option<&str>,
) -> Result<Response, HubError> {
    let mut command = Command::new("curl");
    command.args(OPTIONS);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| HubError::NoCurl { source })?;
    // Options on standard input, unlike arguments, are not visible to other users: the token, and
    // the signatures of addresses.
    let mut options = format!("url = \"{address}\"\n");
    options.push_str(concat!("user-agent = \"vaquita/", env!("CARGO_PKG_VERSION"), "\"\n"));
    options.push_str("header = \"Accept-Encoding: identity\"\n");
    if let Some(token) = token {
        options.push_str(&format!("header = \"Authorization: Bearer {token}\"\n"));
    }
    if let Some(range) = range {
        options.push_str(&format!("range = \"{}-{}\"\n", range.start, range.end.saturating_sub(1)));
    }
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(failed(address, &mut child, &io::ErrorKind::BrokenPipe.into()));
    };
    if let Err(error) = stdin.write_all(options.as_bytes()) {
        return Err(failed(address, &mut child, &error));
    }
    drop(stdin);
    let mut body = BufReader::with_capacity(1 << 18, stdout);
    match read_head(&mut body) {
        Ok((status, headers)) => Ok(Response { status, headers, body, child }),
        Err(error) => Err(failed(address, &mut child, &error)),
    }
}

impl Response {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| &**value)
    }

    /// Whether the status is that of a redirect.
    pub fn redirects(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    /// Reads some of the body; 0 at its end. The end of a connection before the end of the body is
    /// an error.
    pub fn read(&mut self, address: &Address, buffer: &mut [u8]) -> Result<usize, HubError> {
        let read = loop {
            match self.body.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match read {
            Ok(0) if !buffer.is_empty() => match self.child.wait() {
                Ok(status) if status.success() => Ok(0),
                _ => Err(failed(address, &mut self.child, &io::ErrorKind::UnexpectedEof.into())),
            },
            Ok(read) => Ok(read),
            Err(error) => Err(failed(address, &mut self.child, &error)),
        }
    }

    /// The whole body; `None` if it has more than `longest` bytes.
    pub fn text(mut self, address: &Address, longest: u64) -> Result<Option<Vec<u8>>, HubError> {
        let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match self.read(address, &mut buffer)? {
                0 => return Ok(Some(text)),
                read if (text.len() + read) as u64 > longest => return Ok(None),
                read => text.extend_from_slice(&buffer[..read]),
            }
        }
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends a transfer and returns its error, in curl's words if it has any.
fn failed(address: &Address, child: &mut Child, error: &io::Error) -> HubError {
    // It has said what it had to say before it closed its output; or it has not ended at all.
    let _ = child.kill();
    let mut said = Vec::new();
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.take(MESSAGE_BYTES).read_to_end(&mut said);
    }
    let _ = child.wait();
    let said = String::from_utf8_lossy(&said);
    let said = said.trim().trim_start_matches("curl: ");
    let problem = if said.is_empty() { error.to_string() } else { said.to_string() };
    HubError::Connection { url: address.shown(), problem }
}

/// Reads status and headers. Interim answers (status 1xx) are skipped.
fn read_head(from: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
    let mut from = from.take(LONGEST_HEADERS);
    loop {
        let first = read_line(&mut from)?;
        let mut words = first.split(' ');
        let protocol = words.next().is_some_and(|word| word.starts_with("HTTP/"));
        let status = words.next().and_then(|word| word.parse().ok()).filter(|_| protocol);
        let status: u16 = status.ok_or_else(|| invalid("the answer is not HTTP"))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(&mut from)?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.push((name.trim().to_ascii_lowercase(), value.trim().to_string()));
            }
        }
        if !(100..200).contains(&status) {
            return Ok((status, headers));
        }
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    match line.last() {
        Some(b'\n') => Ok(String::from_utf8_lossy(&line).trim_end().to_string()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_up_to_their_empty_line_and_no_further() {
        let text = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/2 206 \r\nContent-Range: bytes 0-1/9\r\n\r\nab";
        let mut from = &text[..];
        let (status, headers) = read_head(&mut from).unwrap();
        assert_eq!((status, from), (206, &b"ab"[..]));
        assert_eq!(headers, [("content-range".to_string(), "bytes 0-1/9".to_string())]);
        for bad in [&b"SSH-2.0\r\n"[..], b"HTTP/1.1 x\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b", b""] {
            assert!(read_head(&mut &bad[..]).is_err());
        }
        let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(1 << 17));
        assert!(read_head(&mut long.as_bytes()).is_err());
    }
}
