//! HTTP as the hub needs it: redirects that do not carry the token elsewhere, ranges, and errors
//! that say whether another attempt makes sense.

use std::ops::Range;
use std::time::Duration;

use crate::address::Address;
use crate::curl::{self, Response};
use crate::error::HubError;

/// Redirects that are followed for one request.
const REDIRECTS: usize = 8;
/// Longest wait that a server may ask for; beyond, the error is returned.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Bytes of a refusal that are read for its reason.
const REASON_BYTES: u64 = 2048;

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts without progress before the error is returned.
    pub attempts: u32,
    /// Pause after the first failure; it doubles with each further one.
    pub pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 8, pause: Duration::from_secs(1) }
    }
}

impl Retry {
    /// The pause after failure number `failures`, from 1; `None` if another attempt is no use.
    pub(crate) fn pause_after(&self, error: &HubError, failures: u32) -> Option<Duration> {
        if !error.is_temporary() || failures >= self.attempts {
            return None;
        }
        match error {
            HubError::Busy { retry_after: Some(asked), .. } if *asked > LONGEST_WAIT => None,
            HubError::Busy { retry_after: Some(asked), .. } => Some(*asked),
            _ => Some(self.pause.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_PAUSE)),
        }
    }
}

/// A client with the token of one hub.
#[derive(Debug)]
pub(crate) struct Http {
    endpoint: Address,
    token: Option<String>,
}

impl Http {
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Self, HubError> {
        let parsed = Address::parse(endpoint.trim_end_matches('/'));
        let endpoint = parsed.ok_or_else(|| HubError::Address { found: endpoint.into() })?;
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        match token.as_ref().is_none_or(|token| token.bytes().all(plain)) {
            true => Ok(Self { endpoint, token }),
            false => Err(HubError::Token { endpoint: endpoint.shown() }),
        }
    }

    /// The hub.
    pub fn endpoint(&self) -> &Address {
        &self.endpoint
    }

    /// Whether requests to the hub carry a token.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Sends a request, follows redirects, and returns the answer if its status is a success,
    /// together with the address that gave it.
    pub fn get(
        &self,
        address: &Address,
        range: Option<&Range<u64>>,
    ) -> Result<(Address, Response), HubError> {
        let mut at = address.clone();
        for _ in 0..=REDIRECTS {
            // The token is for the hub alone, not for the storage that it redirects to.
            let token = self.token.as_deref().filter(|_| at.same_origin(&self.endpoint));
            let response = curl::get(&at, range, token)?;
            if (200..300).contains(&response.status) {
                return Ok((at, response));
            }
            let Some(location) = response.header("location").filter(|_| response.redirects())
            else {
                return Err(refusal(&at, response));
            };
            let refused = |to, problem| Err(HubError::Redirect { url: at.shown(), to, problem });
            match at.join(location) {
                Some(to) if at.is_secure() && !to.is_secure() => {
                    return refused(to.shown(), "it is not encrypted");
                }
                Some(to) => at = to,
                None => {
                    let shown = location.split('?').next().unwrap_or_default();
                    return refused(shown.into(), "it is not an address of the web");
                }
            }
        }
        let (url, to) = (address.shown(), at.shown());
        Err(HubError::Redirect { url, to, problem: "there are too many" })
    }

    /// A range of a file of `total` bytes, with further attempts after temporary errors.
    pub fn range(
        &self,
        address: &Address,
        range: &Range<u64>,
        total: u64,
        retry: &Retry,
    ) -> Result<Vec<u8>, HubError> {
        let len = range.end - range.start;
        self.with_attempts(retry, || {
            let (at, response) = self.get(address, Some(range))?;
            check_range(&at, &response, range, total)?;
            if response.status != 206 && *range != (0..total) {
                return Err(HubError::NoRanges { url: at.shown() });
            }
            let bytes = response.text(&at, len)?;
            let bytes = bytes.filter(|bytes| bytes.len() as u64 == len);
            bytes.ok_or_else(|| HubError::Connection {
                url: at.shown(),
                problem: "the answer has not the length of the range".into(),
            })
        })
    }

    /// A text of at most `longest` bytes, with further attempts after temporary errors.
    pub fn text(
        &self,
        address: &Address,
        longest: u64,
        retry: &Retry,
    ) -> Result<Vec<u8>, HubError> {
        self.with_attempts(retry, || {
            let (at, response) = self.get(address, None)?;
            let text = response.text(&at, longest)?;
            text.ok_or_else(|| HubError::Answer {
                url: at.shown(),
                problem: "the answer is longer than any that makes sense",
                found: format!("over {longest} bytes"),
            })
        })
    }

    fn with_attempts<T>(
        &self,
        retry: &Retry,
        attempt: impl Fn() -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let mut failures = 0;
        loop {
            let error = match attempt() {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            failures += 1;
            match retry.pause_after(&error, failures) {
                Some(pause) => std::thread::sleep(pause),
                None => return Err(error),
            }
        }
    }
}

/// Checks that an answer is to the range that was asked for, of a file of the length published.
pub(crate) fn check_range(
    at: &Address,
    response: &Response,
    range: &Range<u64>,
    total: u64,
) -> Result<(), HubError> {
    let wrong = |problem, found: &str| HubError::Answer {
        url: at.shown(),
        problem,
        found: found.chars().take(100).collect(),
    };
    if response.status == 206 {
        let found = response.header("content-range").unwrap_or_default();
        let expected = format!("bytes {}-{}/{total}", range.start, range.end.saturating_sub(1));
        if !found.eq_ignore_ascii_case(&expected) {
            return Err(wrong("the answer is not the range of the file that was asked for", found));
        }
    } else if let Some(found) = response.header("content-length")
        && found != total.to_string()
    {
        return Err(wrong("the length is not the published one", found));
    }
    Ok(())
}

/// The error of a status that is not a success.
fn refusal(address: &Address, response: Response) -> HubError {
    let (url, status) = (address.shown(), response.status);
    if status == 429 || (500..600).contains(&status) {
        let seconds = response.header("retry-after").and_then(|text| text.parse().ok());
        return HubError::Busy { url, status, retry_after: seconds.map(Duration::from_secs) };
    }
    let code = response.header("x-error-code").unwrap_or_default().to_string();
    let message = response.header("x-error-message").map(String::from);
    // The status says enough if no text arrives, and a page is not a reason.
    let said = message.unwrap_or_else(|| {
        let text = response.text(address, REASON_BYTES).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    });
    let said = if said.trim_start().starts_with('<') { "" } else { said.trim() };
    let said = said.chars().filter(|c| !c.is_control()).take(200).collect();
    HubError::Status { url, status, code, said }
}
