//! A blocking ZooKeeper client, as bare as the protocol: no thread, no pings, no reconnecting.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(10);

/// What a server sends.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) xid: i32,
    pub(crate) error: i32,
    pub(crate) body: Vec<u8>,
}

/// One session on one connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) session: i64,
    pub(crate) password: Vec<u8>,
    xid: i32,
}

impl Client {
    /// Opens a session of 5 s.
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        Client::resume(addr, 0, &[0; 16]).unwrap()
    }

    /// Goes on with a session; an error when the server does not know it, or closes the connection.
    pub(crate) fn resume(addr: SocketAddr, session: i64, password: &[u8]) -> io::Result<Client> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(SOON))?;
        let mut client = Client {
            stream,
            session: 0,
            password: Vec::new(),
            xid: 0,
        };
        let version_and_zxid = [0; 12];
        let request = [
            &version_and_zxid[..],
            &5000_i32.to_be_bytes(),
            &session.to_be_bytes(),
            &buffer(password),
            &[0],
        ];
        client.write(&request.concat());
        let answer = client.read()?;
        client.session = i64::from_be_bytes(answer[8..16].try_into().unwrap());
        client.password = answer[20..36].to_vec();
        match int(&answer[4..]) {
            0 => Err(io::Error::other("session expired")),
            _ => Ok(client),
        }
    }

    /// Makes a node that everybody may use: 0 persistent, 1 ephemeral.
    pub(crate) fn create(&mut self, path: &str, flags: i32) -> Answer {
        self.send_create(path, flags);
        self.answer()
    }

    pub(crate) fn send_create(&mut self, path: &str, flags: i32) {
        let (one, all_rights) = (1_i32.to_be_bytes(), 31_i32.to_be_bytes());
        let parts = [
            &buffer(path.as_bytes())[..],
            &buffer(b"data"),
            &one,
            &all_rights,
            &buffer(b"world"),
            &buffer(b"anyone"),
            &flags.to_be_bytes(),
        ];
        self.send(1, &parts.concat());
    }

    pub(crate) fn delete(&mut self, path: &str) -> Answer {
        let any_version = -1_i32;
        self.send(
            2,
            &[&buffer(path.as_bytes())[..], &any_version.to_be_bytes()].concat(),
        );
        self.answer()
    }

    pub(crate) fn get_data(&mut self, path: &str, watch: bool) -> Answer {
        self.send(
            4,
            &[&buffer(path.as_bytes())[..], &[u8::from(watch)]].concat(),
        );
        self.answer()
    }

    pub(crate) fn ping(&mut self) {
        let (xid, code) = (-2_i32, 11_i32);
        self.write(&[xid.to_be_bytes(), code.to_be_bytes()].concat());
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let answer = self.read().unwrap();
        Answer {
            xid: int(&answer),
            error: int(&answer[12..]),
            body: answer[16..].to_vec(),
        }
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let silent = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(SOON)).unwrap();
        silent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn send(&mut self, code: i32, body: &[u8]) {
        self.xid += 1;
        self.write(&[&self.xid.to_be_bytes()[..], &code.to_be_bytes(), body].concat());
    }

    fn write(&mut self, message: &[u8]) {
        self.stream.write_all(&buffer(message)).unwrap();
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let mut message = vec![0; usize::try_from(int(&len)).unwrap()];
        self.stream.read_exact(&mut message)?;
        Ok(message)
    }
}

fn buffer(bytes: &[u8]) -> Vec<u8> {
    let len = i32::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes(), bytes].concat()
}

fn int(bytes: &[u8]) -> i32 {
    i32::from_be_bytes(bytes[..4].try_into().unwrap())
}
