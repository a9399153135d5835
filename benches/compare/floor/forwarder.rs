//! The floor: whatever comes to one leg goes out of the other, unread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use base::limit;
use relay::driver::epoll::Epoll;
use relay::driver::files::Files;
use relay::driver::uring::Uring;
use relay::driver::{DriverChoice, Network, Token};

use super::{Subject, peers};

/// Where it looks for free ports; below the kernel's own.
const PORTS: std::ops::Range<u16> = 2_000..9_999;

/// Ends the thread when dropped, and waits until its sockets are closed.
struct Running(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        // One that panicked has ended as well.
        let _ = self.1.take().map(JoinHandle::join);
    }
}

/// Its thread and its legs' addresses, two for each call.
type Started = (u32, Vec<SocketAddr>);

/// Starts one for so many calls, which connects its sockets as the relay does.
pub(super) fn start(driver: DriverChoice, calls: u32) -> anyhow::Result<Subject> {
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, started) = sync_channel(1);
    let is_over = Arc::clone(&stop);
    let work = move || match driver {
        DriverChoice::Epoll => {
            if let Ok(network) = Epoll::new(Files::share(1)) {
                forward(network, calls, &sender, &is_over);
            }
        }
        DriverChoice::Auto | DriverChoice::IoUring => {
            if let Ok(network) = Uring::new(Files::share(1)) {
                forward(network, calls, &sender, &is_over);
            }
        }
    };
    let running = Running(stop, Some(std::thread::spawn(work)));
    let (thread, legs) = started.recv()?;
    Subject::new("forwarder", peers()?, &legs, thread, running)
}

/// A leg's token. The worker's sockets for RTP have even ones, and so do these.
const fn token(call: usize, leg: usize) -> Token {
    call * 4 + leg * 2
}

fn forward(
    mut network: impl Network,
    calls: u32,
    started: &SyncSender<Started>,
    is_over: &AtomicBool,
) {
    let calls = calls as usize;
    let mut ports = PORTS.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut legs = Vec::new();
    for at in 0..calls * 2 {
        let token = token(at / 2, at % 2);
        legs.extend(ports.find(|address| network.open(token, *address)));
    }
    let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    // Where nobody waits any more there is nothing to do either.
    let _ = started.try_send((thread, legs));
    let mut peers: Vec<Option<SocketAddr>> = vec![None; calls * 4];
    let (mut ready, mut buffer) = (Vec::new(), [0; 1_501]);
    while !is_over.load(Ordering::Relaxed) {
        network.wait(Duration::from_millis(100), &mut ready);
        for token in ready.iter().copied() {
            for _ in 0..limit::RELAY_BATCH.get() {
                let Some((length, source)) = network.receive(token, &mut buffer) else { break };
                if peers[token] != Some(source) {
                    peers[token] = Some(source);
                    network.connect(token, source);
                }
                if let Some(to) = peers[token ^ 2] {
                    network.send(token ^ 2, to, &buffer[..length]);
                }
            }
        }
    }
}
