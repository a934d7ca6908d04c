//! Clients that are slow or many: each is given up after its time.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use vaquita_server::{Limits, ServerOptions};

use crate::client::{Response, TestServer};

/// Far above every limit of these tests.
const FOREVER: Duration = Duration::from_secs(20);

fn server(change: impl FnOnce(&mut Limits)) -> TestServer {
    let short = Duration::from_millis(300);
    let mut limits =
        Limits { head_time: short, body_time: short, idle_time: short, ..Limits::default() };
    change(&mut limits);
    TestServer::new(ServerOptions { limits, ..ServerOptions::default() })
}

/// Whether the server closes a connection to which `first` was written.
fn is_closed(server: &TestServer, first: &str) -> bool {
    let mut stream = server.connect();
    stream.write_all(first.as_bytes()).unwrap();
    let begun = Instant::now();
    let _ = stream.read_to_end(&mut Vec::new());
    begun.elapsed() < FOREVER
}

#[test]
fn heads_that_do_not_end_and_idle_connections_are_closed() {
    let server = server(|_| {});
    assert!(is_closed(&server, "GET /health HTTP/1.1\r\nHost: local"));
    assert!(is_closed(&server, ""));
    assert!(
        is_closed(&server, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        "after an answer"
    );
}

#[test]
fn a_head_in_drops_has_no_more_time_than_another() {
    let server = server(|_| {});
    let mut stream = server.connect();
    let begun = Instant::now();
    let mut written = stream.write_all(b"GET /health HTTP/1.1\r\n");
    while written.is_ok() && begun.elapsed() < FOREVER {
        written = stream.write_all(b"X: y\r\n");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() < FOREVER);
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let server = server(|_| {});
    let mut stream = server.connect();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 10\r\nConnection: close\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(Response::read(stream).status, 408);
}

#[test]
fn connections_above_the_limit_are_told_to_come_back() {
    let server = server(|limits| {
        limits.connections = 2;
        limits.idle_time = FOREVER * 2;
    });
    let open = [server.connect(), server.connect()];
    std::thread::sleep(Duration::from_millis(100));
    let refused = Response::read(server.connect());
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "5"));
    drop(open);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_client_that_reads_nothing_is_dropped() {
    let server = server(|limits| limits.stall_time = Duration::from_millis(300));
    let mut stream = server.connect();
    // Many answers that nobody reads fill the buffers of the system.
    let one = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let begun = Instant::now();
    while stream.write_all(&one).is_ok() && begun.elapsed() < FOREVER {}
    assert!(begun.elapsed() < FOREVER);
}
