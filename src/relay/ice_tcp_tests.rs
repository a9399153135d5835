//! Frames, what waits, and who may come in.

use std::io::Read;
use std::net::TcpStream as StdStream;

use super::*;

fn framed(datagrams: &[&[u8]]) -> Vec<u8> {
    datagrams.iter().flat_map(|it| [&(it.len() as u16).to_be_bytes()[..], it].concat()).collect()
}

#[test]
fn frames_come_whole_wherever_they_are_cut() {
    let sent = framed(&[&[1; 3], &[], &[2; 1_500], &[3]]);
    for cut in [0, 1, 2, 4, 5, 6, 7, 8, 9, 1_000, sent.len() - 1] {
        let (mut bytes, mut taken) = (Vec::new(), Vec::new());
        for part in [&sent[..cut], &sent[cut..]] {
            bytes.extend_from_slice(part);
            while let Some(frame) = take_frame(&mut bytes).unwrap() {
                taken.push(frame);
            }
        }
        assert_eq!(taken, [vec![1; 3], vec![2; 1_500], vec![3]], "{cut}");
        assert!(bytes.is_empty());
    }
}

#[test]
fn a_frame_larger_than_a_packet_is_refused_before_it_is_there() {
    assert_eq!(take_frame(&mut vec![0x05, 0xdd]), Err(TooLarge));
    assert_eq!(take_frame(&mut vec![0x05, 0xdc]), Ok(None));
}

#[test]
fn who_reads_too_slowly_misses_the_oldest_but_no_half_of_one() {
    let mut backlog = Backlog::default();
    let most = limit::ICE_TCP_QUEUE.value as u8;
    assert!((0..most).all(|n| backlog.push(&[n])));
    assert!(!backlog.push(&[most]));
    assert_eq!(backlog.frames.front().unwrap(), &[0, 1, 1]);
    backlog.written = 1;
    assert!(!backlog.push(&[most + 1]));
    assert_eq!(backlog.frames.front().unwrap(), &[0, 1, 1], "some of it is on its way");
    assert_eq!(backlog.frames[1], [0, 1, 3]);
    assert_eq!(backlog.frames.len(), most.into());
}

#[test]
fn addresses_of_one_network_count_as_one() {
    let of = |text: &str| network(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8:0:0:ffff::9"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
}

/// Workers without sessions.
struct Nobody;

impl Workers for Nobody {
    fn tell_all(&self, _: &Claim) {}
    fn tell(&self, _: SessionId, _: Word) -> Result<(), Word> {
        Ok(())
    }
}

#[test]
fn one_source_has_so_many_connections_and_gets_a_place_back_for_each_that_ends() {
    let door = IceTcp::start(&[SocketAddr::from(([127, 0, 0, 1], 0))], Arc::new(Nobody)).unwrap();
    let connect = || {
        let stream = StdStream::connect(door.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let wait = |is_so: &dyn Fn(IceTcpCounters) -> bool| {
        while !is_so(door.counts().read()) {
            std::thread::yield_now();
        }
    };
    let most = limit::ICE_TCP_CONNECTIONS_PER_SOURCE.value;
    let mut held: Vec<_> = (0..most).map(|_| connect()).collect();
    wait(&|counted| counted.accepted == most);
    assert_eq!(connect().read(&mut [0; 1]).unwrap_or(0), 0);
    wait(&|counted| counted.refused == 1);
    drop(held.pop());
    wait(&|counted| counted.unproved == 1);
    held.push(connect());
    wait(&|counted| counted.accepted == most + 1);
    door.stop();
    assert!(held.iter_mut().all(|it| it.read(&mut [0; 1]).unwrap_or(0) == 0));
}

#[test]
fn who_has_not_checked_in_time_is_closed_however_slowly_it_speaks() {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    let counts = Arc::<Counts>::default();
    let (workers, open) = (Arc::new(Nobody), RefCell::default());
    let door = Rc::new(Door { workers, counts: counts.clone(), open });
    // Nothing, half a message, and messages that are empty.
    let begun = framed(&[&[0; 20]]);
    for said in [&[][..], &begun[..10], &[0; 8]] {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut far = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            let (near, peer) = listener.accept().await.unwrap();
            let speak = async {
                for byte in said {
                    sleep(Duration::from_millis(400)).await;
                    std::io::Write::write_all(&mut far, &[*byte]).unwrap();
                }
            };
            let began = Instant::now();
            let place = Place::take(&door, peer).unwrap();
            let served = async {
                serve(near, peer, 1, place).await;
                began.elapsed()
            };
            let (lasted, ()) = tokio::join!(served, speak);
            let most = limit::ICE_TCP_FIRST_MS.millis();
            assert!(lasted >= most && lasted < most + Duration::from_millis(50), "{lasted:?}");
            assert_eq!(far.read(&mut [0; 1]).unwrap(), 0, "closed");
        });
    }
    assert_eq!(counts.unproved.load(Ordering::Relaxed), 3);
    assert_eq!(door.open.borrow().all, 0);
}
