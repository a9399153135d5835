//! Many connections that never finish their handshake.

use std::time::{Duration, Instant};

use base::limit;
use tokio::io::AsyncWriteExt;
use transport::Transport;

use crate::support::{Edge, OK, client_config, expect, handshake, request, tcp_from, until};

/// The first bytes of a TLS record that promises more.
const HALF_A_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_handshakes_do_not_keep_a_good_client_waiting() {
    let edge = Edge::start().await;
    let target = edge.address(Transport::Tls);
    let mut held = Vec::new();
    for index in 0..1_000_u16 {
        let host = u8::try_from(2 + index % 4).unwrap();
        // A connection over the limit may be reset while we write: that is the point.
        if let Ok(mut stream) = tcp_from([127, 0, 0, host], target).await {
            let _ = stream.write_all(HALF_A_HELLO).await;
            held.push(stream);
        }
    }
    let before = Instant::now();
    let stream = tcp_from([127, 0, 0, 9], target).await.unwrap();
    let config = client_config(&edge.certificates.authority, None);
    let mut client = handshake(config, stream).await.unwrap();
    client.write_all(request("good", "").as_bytes()).await.unwrap();
    expect(&mut client, OK.as_bytes()).await;
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());

    // Each of the four addresses holds at most its share; the rest was turned away at accept.
    let share = 4 * limit::TRANSPORT_HANDSHAKES_PER_SOURCE.get();
    edge.until_closed("limit", 1_000 - 2 * share).await;
    // And those few are cut when their time is up; nothing of them is left.
    let timed_out = || edge.causes().iter().filter(|it| **it == "handshake_timeout").count();
    until(|| timed_out() >= share).await;
    assert_eq!(edge.handle.connection_count(), 1, "the good client");
    drop(held);
}
