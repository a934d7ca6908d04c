//! Who may use the server: keys, the name under which it is addressed, and the origin of pages.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, StatusCode, header};

use crate::error::{ApiError, Result};
use crate::options::ServerOptions;

/// Checks requests before anything of their body is read.
pub(crate) struct Guard {
    options: ServerOptions,
    /// Whether a page of another site that was resolved to this machine could use the server: it
    /// has no keys, or listens on loopback, where people do not use them.
    checks_host: bool,
    /// Whether the server listens on loopback only.
    loopback: bool,
    /// Name of this machine.
    machine: String,
}

impl Guard {
    /// A guard of a server that listens on loopback only, or on other addresses.
    pub fn new(options: ServerOptions, loopback: bool) -> Self {
        let machine = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        let checks_host = loopback || options.keys.is_empty();
        Self { options, checks_host, loopback, machine }
    }

    /// Refuses requests to a foreign name and from foreign pages.
    pub fn check_source(&self, headers: &HeaderMap) -> Result<()> {
        let forbidden = |message: String| {
            Err(ApiError::new(StatusCode::FORBIDDEN, "permission_error", message))
        };
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        if self.checks_host && !self.is_ours(name_of(host)) {
            return forbidden(
                "this name in `Host` is not one of the server; allow it with --allowed-host".into(),
            );
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        match origin.to_str() {
            Ok(origin) if is_same(origin, host) || self.allows(origin) => Ok(()),
            _ => forbidden("pages of this origin may not use the server; see --cors-origin".into()),
        }
    }

    /// Whether an origin was allowed by the options.
    pub fn allows(&self, origin: &str) -> bool {
        let mut allowed = self.options.cors_origins.iter();
        allowed.any(|one| match one.as_str() {
            "*" => true,
            "localhost" => is_this_machine(origin),
            one => one.eq_ignore_ascii_case(origin),
        })
    }

    fn is_ours(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_lowercase();
        if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return !self.loopback || address.is_loopback();
        }
        let machine = name == self.machine || name.strip_suffix(".local") == Some(&self.machine);
        let allowed = self.options.allowed_hosts.iter().any(|one| one.eq_ignore_ascii_case(&name));
        name == "localhost" || name.ends_with(".localhost") || machine || allowed
    }

    /// Name of the client by its key; `""` where no keys are needed.
    pub fn client(&self, headers: &HeaderMap) -> Result<String> {
        if self.options.keys.is_empty() {
            return Ok(String::new());
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        let key = bearer.or(text("x-api-key")).unwrap_or_default();
        let holder = self.options.keys.holder(key).map(String::from);
        holder.ok_or_else(|| {
            let message =
                "the key is missing or wrong; send it as `Authorization: Bearer KEY` or `x-api-key: KEY`";
            let error = ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", message);
            ApiError { code: Some("invalid_api_key"), ..error }
        })
    }
}

/// Refuses a body that a page of another site could send without asking, and one of two lengths.
pub(crate) fn check_body(method: &Method, headers: &HeaderMap) -> Result<()> {
    if headers.contains_key(header::TRANSFER_ENCODING)
        && headers.contains_key(header::CONTENT_LENGTH)
    {
        return Err(ApiError::bad("the body has both a Content-Length and a Transfer-Encoding"));
    }
    if *method != Method::POST {
        return Ok(());
    }
    let is_empty = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    if is_empty && !headers.contains_key(header::CONTENT_TYPE) {
        return Ok(());
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match kind.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "the body of a POST is JSON: send `Content-Type: application/json`",
        )),
    }
}

/// The name in a `Host` header, without its port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => &host[..end + 2],
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// Whether an origin is that of the page of the server itself.
fn is_same(origin: &str, host: &str) -> bool {
    let authority = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
    !host.is_empty() && authority.is_some_and(|one| one.eq_ignore_ascii_case(host))
}

/// Whether an origin is of a page that this machine serves, on any port.
fn is_this_machine(origin: &str) -> bool {
    let authority = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
    let name = authority.map(name_of).unwrap_or_default().to_lowercase();
    let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::keys::Keys;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn on_loopback_only_its_names_are_served() {
        let options =
            ServerOptions { allowed_hosts: vec!["pi.example".into()], ..ServerOptions::default() };
        let guard = Guard::new(options, true);
        for good in ["localhost:8080", "127.0.0.1", "[::1]:8080", "a.localhost", "PI.example:80"] {
            assert!(guard.check_source(&headers(&[("host", good)])).is_ok(), "{good}");
        }
        for bad in ["evil.example", "192.168.0.7", "localhost.evil.example", "", "notlocalhost"] {
            assert!(guard.check_source(&headers(&[("host", bad)])).is_err(), "{bad}");
        }
        let open = Guard::new(ServerOptions::default(), false);
        assert!(open.check_source(&headers(&[("host", "192.168.0.7:8080")])).is_ok());
        assert!(open.check_source(&headers(&[("host", "evil.example")])).is_err());
        let keys = Keys::parse("0123456789").unwrap();
        let keyed = Guard::new(ServerOptions { keys, ..ServerOptions::default() }, false);
        assert!(keyed.check_source(&headers(&[("host", "chat.example")])).is_ok());
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let options =
            ServerOptions { cors_origins: vec!["https://a.example".into()], ..Default::default() };
        let guard = Guard::new(options, true);
        let from = |origin| {
            guard.check_source(&headers(&[("host", "localhost:8080"), ("origin", origin)]))
        };
        assert!(from("http://localhost:8080").is_ok());
        assert!(from("https://a.example").is_ok());
        for bad in ["http://localhost:9090", "null", "https://evil.example", "http://localhost"] {
            assert!(from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pages_of_this_machine_or_of_all_can_be_allowed() {
        let guard = |allowed: &str| {
            let cors_origins = vec![allowed.to_string()];
            Guard::new(ServerOptions { cors_origins, ..ServerOptions::default() }, true)
        };
        let local = guard("localhost");
        for good in
            ["http://localhost", "http://LOCALHOST:3000", "http://127.0.0.1:1", "http://[::1]"]
        {
            assert!(local.allows(good), "{good}");
        }
        for bad in
            ["http://notlocalhost", "http://localhost.evil.com", "http://evil.com", "null", ""]
        {
            assert!(!local.allows(bad), "{bad}");
            assert!(guard("*").allows(bad));
        }
    }

    #[test]
    fn a_body_is_json_of_one_length() {
        let check = |list: &[(&'static str, &str)]| check_body(&Method::POST, &headers(list));
        assert!(check(&[("content-type", "application/json; charset=utf-8")]).is_ok());
        assert!(check(&[("content-type", "text/plain")]).is_err());
        assert!(check(&[]).is_err());
        let two = [("content-length", "3"), ("transfer-encoding", "chunked")];
        assert!(check(&two).is_err());
        assert!(check_body(&Method::GET, &headers(&[])).is_ok());
    }

    #[test]
    fn keys_are_found_in_both_headers() {
        let keys = Keys::parse("alice:0123456789").unwrap();
        let guard = Guard::new(ServerOptions { keys, ..ServerOptions::default() }, true);
        let client = |list: &[(&'static str, &str)]| guard.client(&headers(list));
        assert_eq!(client(&[("authorization", "bearer 0123456789")]).unwrap(), "alice");
        assert_eq!(client(&[("x-api-key", "0123456789")]).unwrap(), "alice");
        assert!(client(&[("authorization", "Basic 0123456789")]).is_err());
        assert!(client(&[]).is_err());
    }
}
