//! Answers from memory: the same bytes whichever way they are sent.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::stage::{Stage, config};
use crate::upstream::{Answer, Upstream};

const LENGTHS: [usize; 4] = [31 << 10, 50_000, 100_000, 128 << 10];

/// Zips as a cache has them; what is in them is not looked at again.
fn put(cache: &Path) -> Vec<(String, Vec<u8>)> {
    let folder = cache.join("hot.example/m/@v");
    std::fs::create_dir_all(&folder).unwrap();
    let put = |(i, length): (u8, &usize)| {
        let body: Vec<u8> = (0..*length).map(|at| (at % 251) as u8 ^ i).collect();
        std::fs::write(folder.join(format!("v1.{i}.0.zip")), &body).unwrap();
        std::fs::write(folder.join(format!("v1.{i}.0.ziphash")), "h1:hot").unwrap();
        (format!("/hot.example/m/@v/v1.{i}.0.zip"), body)
    };
    (0..).zip(&LENGTHS).map(put).collect()
}

async fn read(connection: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.unwrap();
    body
}

#[tokio::test]
async fn answers_from_memory_are_whole_and_in_order_also_for_a_client_that_reads_late() {
    let upstream = Upstream::start(|_| Answer::not_found()).await;
    let mut zips = Vec::new();
    let stage = Stage::prepared(&config(&[&upstream]), |folder| zips = put(&folder.join("cache"))).await;
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: cache.example\r\n\r\n");
    for pipelined in [1, 5] {
        // Its buffer is small and it reads late, so that nothing is sent in one go.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut connection = socket.connect(stage.url.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap();
        for round in 0..4 {
            let order: Vec<&(String, Vec<u8>)> = (0..pipelined).map(|i| &zips[(round + i * 3) % zips.len()]).collect();
            for _ in 0..3 {
                let asked: String = order.iter().map(|(path, _)| ask(path)).collect();
                connection.write_all(asked.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                for (path, body) in &order {
                    assert!(read(&mut connection).await == *body, "{path}");
                }
            }
        }
    }
    // One that leaves in the middle takes nothing from the others.
    let (path, body) = &zips[3];
    let mut leaver = TcpStream::connect(stage.url.strip_prefix("http://").unwrap()).await.unwrap();
    leaver.write_all(ask(path).repeat(40).as_bytes()).await.unwrap();
    leaver.read_u8().await.unwrap();
    drop(leaver);
    assert!(stage.get(path).await.is(body));
    assert!(upstream.take_seen().is_empty());
}
