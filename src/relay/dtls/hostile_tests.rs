//! Peers that mean harm or are merely strange, against both back ends; most of it is what made one
//! of the libraries, left alone, abort, hang or give up.

use std::time::Duration;

use base::SeededRandom;
use media::{DtlsBackend, DtlsRole};
use rtp::sdes::Suite;

use super::association_tests::{BACKENDS, Clock, End, identity, setup, story};
use super::handmade::{Client, Faults};
use super::record::{message_header, write_record};
use super::{Failure, Setup};

/// A server of ours and a client by hand.
struct Scene {
    clock: Clock,
    server: End,
    client: Client,
}

impl Scene {
    fn new(backend: DtlsBackend) -> Self {
        Self::with(backend, false)
    }

    fn with(backend: DtlsBackend, has_13: bool) -> Self {
        let clock = Clock::start();
        let (ours, theirs) = (identity(2), identity(1));
        let setup = setup(backend, DtlsRole::Passive, &ours, theirs.fingerprint());
        let server = End::new(clock, Setup { has_13, ..setup });
        Self { clock, server, client: Client::new(theirs) }
    }

    /// Gives datagrams to the server and its answers to the client.
    async fn send(&mut self, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let now = self.clock.now();
        datagrams.iter().for_each(|it| self.server.association.handle_datagram(now, it));
        self.wait(10).await
    }

    async fn wait(&mut self, millis: u64) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        for _ in 0..millis.div_ceil(5) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            answers.extend(self.server.run(self.clock.now()));
        }
        answers.iter().for_each(|it| self.client.receive(it));
        answers
    }

    /// A ClientHello, with the cookie where one is asked for; up to the server's flight.
    async fn hello(&mut self) {
        let hello = self.client.hello(4_000);
        self.send(&hello).await;
        if self.client.is_asked_again {
            let hello = self.client.hello(1_000);
            self.send(&hello).await;
        }
        assert!(self.client.is_server_done || self.server.failure.is_some());
    }

    async fn complete(backend: DtlsBackend) -> Self {
        let mut scene = Self::new(backend);
        scene.hello().await;
        let flight = scene.client.answer();
        scene.send(&[flight]).await;
        scene.check_keys("complete");
        scene
    }

    fn check_keys(&self, story: &str) {
        let ours = self.server.keys.as_ref();
        let ours = ours.unwrap_or_else(|| panic!("{story}: {:?}", self.server.failure));
        let theirs = self.client.keys.as_ref().unwrap();
        assert_eq!(ours.suite, Suite::AeadAes128Gcm, "{story}");
        assert_eq!((&ours.send, &ours.receive), (&theirs.receive, &theirs.send), "{story}");
    }
}

/// Runs a story with each back end.
fn with_each<T: Future<Output = ()>>(tell: impl Fn(DtlsBackend) -> T) {
    BACKENDS.into_iter().for_each(|backend| story(tell(backend)));
}

#[test]
fn a_client_hello_with_dtls_1_3_and_ml_kem_connects_in_pieces_of_any_size_and_order() {
    with_each(|backend| async move {
        for (piece, order) in [(1_150, 0), (700, 1), (400, 2), (300, 3), (90, 1), (64, 0)] {
            let mut scene = Scene::new(backend);
            let story = format!("{backend:?} {piece} {order}");
            let mut hello = scene.client.hello(piece);
            assert!(hello.len() > 1);
            shuffle(&mut hello, order);
            scene.send(&hello).await;
            if scene.client.is_asked_again {
                let mut hello = scene.client.hello(piece);
                shuffle(&mut hello, order);
                scene.send(&hello).await;
            }
            assert!(scene.client.is_server_done, "{story}: {:?}", scene.server.failure);
            let flight = scene.client.answer();
            scene.send(&[flight]).await;
            scene.check_keys(&story);
        }
    });
}

#[test]
fn dtls_1_3_is_not_spoken_where_it_would_cost_a_better_suite() {
    // AES-CM first, as Chromium has it: the library would take it in DTLS 1.3.
    for (profiles, is_13) in [(vec![1, 7], false), (vec![2, 1, 7], false), (vec![7, 1], true)] {
        story(async move {
            let mut scene = Scene::with(DtlsBackend::Dimpl, true);
            scene.client.profiles = profiles;
            let mut hello = scene.client.hello(700);
            shuffle(&mut hello, 1);
            let answers = scene.send(&hello).await;
            assert!(!answers.is_empty());
            assert_eq!(scene.client.is_server_done, !is_13);
            if !is_13 {
                // Records of DTLS 1.3 do not disturb it.
                let flight = scene.client.answer();
                scene.send(&[vec![0x2e; 80], flight, vec![0x2f; 80]]).await;
                scene.check_keys("DTLS 1.2");
                assert!(!scene.server.association.is_13());
            }
        });
    }
}

fn shuffle(pieces: &mut Vec<Vec<u8>>, order: usize) {
    match order {
        0 => {}
        1 => pieces.reverse(),
        2 => *pieces = pieces.iter().flat_map(|it| [it.clone(), it.clone()]).collect(),
        _ => {
            // Twice, in two orders, several records in a datagram.
            let back: Vec<_> = pieces.iter().rev().cloned().collect();
            pieces.extend(back);
            *pieces = pieces.chunks(2).map(<[_]>::concat).collect();
        }
    }
}

#[test]
fn a_hundred_thousand_one_byte_pieces_end_the_handshake_and_nothing_else() {
    with_each(|backend| async move {
        let mut scene = Scene::new(backend);
        for at in 0..100_000_usize {
            let mut header = message_header(1, 0, 100_000);
            header[6..9].copy_from_slice(&at.to_be_bytes()[5..]);
            header[9..12].copy_from_slice(&[0, 0, 1]);
            let mut record = Vec::new();
            write_record(&mut record, 22, at as u64, &[&header, b"A"]);
            scene.server.association.handle_datagram(scene.clock.now(), &record);
        }
        assert_eq!(scene.wait(10).await.len(), 0);
        assert_eq!(scene.server.failure, Some(Failure::Flood), "{backend:?}");
    });
}

#[test]
fn forged_records_after_completion_change_nothing() {
    with_each(|backend| async move {
        let mut scene = Scene::complete(backend).await;
        let mut forged = Vec::new();
        for (kind, epoch, fragment) in [
            (21, 0, &[2, 40][..]),
            (21, 0, &[1, 0]),
            (23, 0, b"data in the clear"),
            (20, 0, &[1]),
            (20, 1, &[1]),
            (23, 1, &[3; 8]),
            (23, 1, &[3; 24]),
            (23, 1, &[3; 100]),
            (21, 1, &[3; 10]),
            (21, 1, &[3; 26]),
            (21, 2, &[3; 26]),
            (22, 2, &[3; 60]),
            (99, 1, &[3; 60]),
        ] {
            let mut record = Vec::new();
            write_record(&mut record, kind, 77, &[fragment]);
            record[3..5].copy_from_slice(&u16::to_be_bytes(epoch));
            forged.push(record);
        }
        for _ in 0..20 {
            assert_eq!(scene.send(&forged).await.len(), 0, "{backend:?}");
        }
        assert!(!scene.server.is_over(), "{backend:?}");
        // The real goodbye is heard all the same.
        let goodbye = scene.client.protect(21, &[1, 0]);
        scene.wait(20).await;
        scene.send(&[goodbye]).await;
        assert!(scene.server.is_closed, "{backend:?}");
        assert_eq!(scene.server.failure, None);
    });
}

#[test]
fn a_lost_last_flight_is_sent_again_and_is_no_amplifier() {
    with_each(|backend| async move {
        let mut scene = Scene::new(backend);
        scene.hello().await;
        let flight = scene.client.answer();
        // The server's last flight does not reach the client.
        let now = scene.clock.now();
        scene.server.association.handle_datagram(now, &flight);
        let mut lost = Vec::new();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            lost.extend(scene.server.run(scene.clock.now()));
        }
        assert!(scene.server.keys.is_some() && scene.client.keys.is_none(), "{backend:?}");
        scene.wait(400).await;
        let again = scene.send(std::slice::from_ref(&flight)).await;
        assert_eq!(again, lost, "{backend:?}");
        scene.check_keys("after the repetition");
        // Whoever goes on asking gets eight in all.
        let mut answers = 0;
        for _ in 0..1_000 {
            answers += scene.send(std::slice::from_ref(&flight)).await.len();
        }
        assert_eq!(answers, 7 * lost.len(), "{backend:?}");
        assert!(!scene.server.is_over());
    });
}

#[test]
fn a_handshake_without_proof_of_the_key_gives_no_keys() {
    let cases = [
        Faults { no_certificate: true, ..Faults::default() },
        Faults { no_certificate_verify: true, ..Faults::default() },
        Faults { foreign_signature: true, ..Faults::default() },
        Faults { no_extended_master_secret: true, ..Faults::default() },
    ];
    for faults in cases {
        with_each(|backend| async move {
            let mut scene = Scene::new(backend);
            scene.client.faults = faults;
            scene.hello().await;
            if scene.client.is_server_done {
                let flight = scene.client.answer();
                scene.send(&[flight]).await;
            }
            scene.wait(11_000).await;
            assert_eq!(scene.server.keys, None, "{backend:?} {faults:?}");
            assert!(scene.server.failure.is_some(), "{backend:?} {faults:?}");
            assert_eq!(scene.client.keys, None, "{backend:?} {faults:?}");
        });
    }
}

#[test]
fn a_fatal_alert_within_the_handshake_is_told_as_what_it_is() {
    with_each(|backend| async move {
        let mut scene = Scene::new(backend);
        scene.hello().await;
        let mut alert = Vec::new();
        write_record(&mut alert, 21, 9, &[&[2, 46]]);
        scene.send(&[alert]).await;
        assert_eq!(scene.server.failure, Some(Failure::Alert(46)), "{backend:?}");
    });
}

#[test]
fn any_bytes_changed_anywhere_never_panic_and_never_give_other_keys() {
    use base::Random;
    for backend in BACKENDS {
        for seed in 0..60 {
            story(async {
                let mut random = SeededRandom::new(seed);
                let mut scene = Scene::new(backend);
                let mut spoil = |datagram: &mut Vec<u8>| {
                    for _ in 0..random.below(4) {
                        let at = random.below(u32::try_from(datagram.len()).unwrap()) as usize;
                        datagram[at] = random.u32().to_be_bytes()[0];
                    }
                };
                let mut hello = scene.client.hello(600);
                hello.iter_mut().for_each(&mut spoil);
                scene.send(&hello).await;
                if scene.client.is_asked_again {
                    let mut hello = scene.client.hello(1_100);
                    hello.iter_mut().for_each(&mut spoil);
                    scene.send(&hello).await;
                }
                if scene.client.is_server_done {
                    let mut flight = scene.client.answer();
                    spoil(&mut flight);
                    scene.send(&[flight]).await;
                }
                scene.wait(11_000).await;
                if scene.client.keys.is_some() {
                    scene.check_keys("spoiled, and yet complete");
                }
                assert!(scene.server.keys.is_some() || scene.server.is_over());
            });
        }
    }
}
