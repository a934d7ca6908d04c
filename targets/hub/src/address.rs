//! Addresses, as far as a hub needs them: origins, and targets of redirects.

/// An absolute `http` or `https` address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// `https` or `http`.
    scheme: &'static str,
    /// Host with port, in lower case.
    host: String,
    /// Path and query, from its slash on.
    path: String,
}

impl Address {
    pub fn parse(text: &str) -> Option<Self> {
        // Anything else must be escaped; quotes and backslashes would end a string of curl's options.
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if !text.bytes().all(plain) {
            return None;
        }
        let (scheme, rest) = match text.split_once("://")? {
            (scheme, rest) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
            (scheme, rest) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        // A name before an @ would be credentials, which make a host look like another.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return None;
        }
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
        let default = if scheme == "https" { ":443" } else { ":80" };
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix(default).unwrap_or(&host).to_string();
        Some(Self { scheme, host, path })
    }

    /// The target of a redirect.
    pub fn join(&self, location: &str) -> Option<Self> {
        if location.contains("://") && !location.starts_with('/') {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme));
        }
        if !location.starts_with('/') {
            return None;
        }
        Self::parse(&format!("{}://{}{location}", self.scheme, self.host))
    }

    /// Whether both have scheme, host and port in common.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host == other.host
    }

    pub fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    /// The address without its query, which may have a signature in it.
    pub fn shown(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{}://{}{path}", self.scheme, self.host)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.host, self.path)
    }
}

/// Escapes a path for an address; slashes stay.
pub(crate) fn escape_path(path: &str) -> String {
    escape(path, b"-._~/")
}

/// Escapes one component of a path.
pub(crate) fn escape_component(text: &str) -> String {
    escape(text, b"-._~")
}

fn escape(text: &str, plain: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_relative_to_their_address_and_origins_have_ports() {
        let at = Address::parse("https://Hub.co/a/b?x=1").unwrap();
        assert_eq!(at.to_string(), "https://hub.co/a/b?x=1");
        assert_eq!(at.shown(), "https://hub.co/a/b");
        assert_eq!(at.join("/c?y").unwrap().to_string(), "https://hub.co/c?y");
        assert_eq!(at.join("//cdn.co/c").unwrap().to_string(), "https://cdn.co/c");
        assert_eq!(at.join("http://cdn.co").unwrap().to_string(), "http://cdn.co/");
        assert!(at.same_origin(&Address::parse("https://hub.co:443/").unwrap()));
        for other in ["https://hub.co:444/", "http://hub.co/", "https://hub.co.evil/"] {
            assert!(!at.same_origin(&Address::parse(other).unwrap()), "{other}");
        }
        for text in ["ftp://a", "https://", "https://a@b/", "a/b", "https://a b/", "https://a/\"\n"]
        {
            assert!(Address::parse(text).is_none(), "{text}");
        }
        assert!(at.join("c").is_none() && at.join("file:///etc/passwd").is_none());
    }

    #[test]
    fn paths_are_escaped_for_addresses() {
        assert_eq!(escape_path("a b/ü?#%.gguf"), "a%20b/%C3%BC%3F%23%25.gguf");
        assert_eq!(escape_component("refs/pr/1"), "refs%2Fpr%2F1");
    }
}
