//! How much memory an idle registration costs. The clients are in a process of their own; for a
//! figure to believe, `CALLGATE_TEST_IDLE=4000` has more of them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use sip::Status;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpSocket;

use crate::sip_client::Browser;
use crate::support::{Edge, client_config};

/// Registrations, where nothing else is asked for.
const MANY: usize = 300;
/// What one may cost, in bytes.
const MOST: usize = 30_000;
/// Below limit `transport.browsers_per_source`.
const PER_SOURCE: usize = 200;
const ADDRESS: &str = "CALLGATE_TEST_IDLE_ADDRESS";
const AUTHORITY: &str = "CALLGATE_TEST_IDLE_AUTHORITY";

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let kilobytes: usize = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1_024
}

fn many() -> usize {
    std::env::var("CALLGATE_TEST_IDLE").map_or(MANY, |many| many.parse().unwrap())
}

#[tokio::test]
async fn an_idle_registration_costs_little_memory() {
    let many = many();
    let edge = Edge::start().await;
    // What is allocated once is not counted.
    let mut first = Browser::open(&edge, "alice", "wonderland").await;
    assert_eq!(first.registered().await.status, Status::OK);
    let before = resident();
    let mut clients = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "idle::clients"])
        .env(ADDRESS, edge.https.to_string())
        .env(AUTHORITY, &edge.authority)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(clients.stdout.take().unwrap()).lines();
    while lines.next_line().await.unwrap().expect("all to register") != "registered" {}
    assert_eq!(edge.api.registrar().count(), many + 1);
    let each = resident().saturating_sub(before) / many;
    println!("{many} idle registrations: {each} bytes each");
    clients.kill().await.unwrap();
    assert!(each <= MOST, "{each} bytes each");
}

#[tokio::test]
async fn clients() {
    let (Ok(address), Ok(authority)) = (std::env::var(ADDRESS), std::env::var(AUTHORITY)) else {
        return;
    };
    let address: SocketAddr = address.parse().unwrap();
    let tls = Arc::new(client_config(Path::new(&authority)));
    let mut browsers = Vec::new();
    for number in 0..many() {
        let socket = TcpSocket::new_v4().unwrap();
        let last = u8::try_from(2 + number / PER_SOURCE).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
        let stream = socket.connect(address).await.unwrap();
        let user = format!("user{number}");
        let who = (&*user, "wonderland");
        let mut browser = Browser::over(stream, &tls, who, None).await.unwrap();
        assert_eq!(browser.registered().await.status, Status::OK);
        browsers.push(browser);
    }
    println!("registered");
    std::future::pending::<()>().await;
}
