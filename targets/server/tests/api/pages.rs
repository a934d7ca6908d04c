//! The page, figures and what they do not tell.

use serde_json::json;

use crate::client::SHARED;

#[test]
fn the_page_is_sent_compressed_with_its_policy() {
    let mut stream = SHARED.connect();
    std::io::Write::write_all(
        &mut stream,
        format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", SHARED.address)
            .as_bytes(),
    )
    .unwrap();
    let mut reader = std::io::BufReader::new(stream);
    let (status, headers) = crate::client::read_head(&mut reader).unwrap();
    assert_eq!((status, headers["content-encoding"].as_str()), (200, "gzip"));
    assert!(headers["content-security-policy"].contains("default-src 'none'"));
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let again = SHARED.send("GET", "/", &[("if-none-match", &headers["etag"])], "");
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(SHARED.send("GET", "/", &[("host", "evil.example")], "").status, 403);
}

#[test]
fn figures_count_and_tell_no_texts() {
    let secret = "zebra-crossing-4711";
    SHARED.ask(secret, json!({"max_tokens": 2, "user": secret}));
    let metrics = SHARED.get("/metrics");
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4");
    for name in [
        "vaquita_requests_total{route=\"POST /v1/chat/completions\",status=\"200\"}",
        "vaquita_generated_tokens_total",
        "vaquita_time_to_first_token_seconds_count",
        "vaquita_queue_depth",
        "llamacpp:tokens_predicted_total",
    ] {
        assert!(metrics.body.contains(name), "{name}: {}", metrics.body);
    }
    // Every line is a comment or a name and a number.
    for line in metrics.body.lines().filter(|line| !line.starts_with('#')) {
        let (_, number) = line.rsplit_once(' ').unwrap();
        assert!(number.parse::<f64>().is_ok(), "{line}");
    }
    for path in ["/metrics", "/slots", "/props", "/v1/models"] {
        assert!(!SHARED.get(path).body.contains(secret), "{path}");
    }
    let props = SHARED.get("/props").json();
    assert_eq!(props["default_generation_settings"]["n_ctx"], 2048);
    assert_eq!(SHARED.get("/slots").json().as_array().unwrap().len(), 4);
}
