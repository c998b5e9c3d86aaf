//! One blocking HTTP GET, for what servers say about themselves.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Fetches the body of `path`. `within` bounds connecting, and each read and write.
///
/// HTTP/1.0, so that the answer is neither chunked nor followed by another one: it ends where the connection does.
pub(super) fn get(server: SocketAddr, path: &str, within: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("GET {path}: {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn body_is_given_and_other_statuses_are_errors() {
        for (answer, expected) in [
            ("HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody\r\n", Ok("body\r\n")),
            (
                "HTTP/1.1 503 Busy\r\n\r\nbody",
                Err("GET /x: HTTP/1.1 503 Busy"),
            ),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let n = stream.read(&mut request).unwrap();
                assert!(request[..n].starts_with(b"GET /x HTTP/1.0\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let got = get(addr, "/x", Duration::from_secs(5));
            assert_eq!(
                got.map_err(|e| e.to_string()),
                expected.map(str::to_owned).map_err(str::to_owned)
            );
            server.join().unwrap();
        }
    }
}
