//! A name server that the tests control: A records with a TTL of one second, nothing else.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, OnceLock};

fn records() -> &'static Mutex<HashMap<String, Ipv4Addr>> {
    static RECORDS: OnceLock<Mutex<HashMap<String, Ipv4Addr>>> = OnceLock::new();
    RECORDS.get_or_init(Mutex::default)
}

/// From now on the host has this one address.
pub(crate) fn set(host: &str, address: &str) {
    records().lock().unwrap().insert(host.to_owned(), address.parse().unwrap());
}

/// Serves on loopback until the process ends.
pub(crate) fn serve() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length]) {
                let _sent = socket.send_to(&answer, peer);
            }
        }
    });
    address
}

/// RFC 1035: the question is echoed; a known name has its A record, other types of it nothing, other names NXDOMAIN.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(12..at + 4)?;
    let known = records().lock().unwrap().get(&name).copied();
    let record = known.filter(|_| kind == 1);
    let code = if known.is_some() { 0x80 } else { 0x83 };
    let mut out = vec![query[0], query[1], 0x85, code, 0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0];
    out.extend_from_slice(question);
    if let Some(address) = record {
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        out.extend_from_slice(&address.octets());
    }
    Some(out)
}
