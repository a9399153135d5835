//! Media: RTP and RTCP packets, the jitter buffer, key presses, statistics.

use core::time::Duration;

use base::{Instant, WallTime};
use rtp::rtcp::Rtcp;
use rtp::{
    Compound, Datagram, DtmfReceiver, JitterBuffer, JitterConfig, NtpTime, Packet, PacketMut, Pull,
    ReceiveStats, SendStats, classify,
};

const CLOCK_RATE: u32 = 8_000;
const TICK: Duration = Duration::from_millis(20);

/// A leg's life: a list of `(length, wait, datagram)`, each of the first two one byte, the wait
/// in units of 2 ms; a length of 255 takes all that is left.
pub fn rtp(data: &[u8]) {
    let _ = (Packet::parse(data), Compound::parse(data).map(|it| it.packets().count()));
    let mut leg = Leg::new();
    let mut rest = data;
    while let [length, wait, after @ ..] = rest {
        let length = if *length == 255 { after.len() } else { usize::from(*length) };
        let (datagram, after) = after.split_at(length.min(after.len()));
        rest = after;
        leg.wait(Duration::from_millis(2 * u64::from(*wait)));
        leg.receive(datagram);
    }
    leg.wait(Duration::from_secs(2));
    leg.check();
}

struct Leg {
    now: Instant,
    pulled: Instant,
    jitter: JitterBuffer,
    keys: DtmfReceiver,
    heard: ReceiveStats,
    sent: SendStats,
    payload_bytes: usize,
}

impl Leg {
    fn new() -> Self {
        let config = JitterConfig::new(CLOCK_RATE);
        Self {
            now: Instant::ZERO,
            pulled: Instant::ZERO,
            jitter: JitterBuffer::new(config),
            keys: DtmfReceiver::new(CLOCK_RATE),
            heard: ReceiveStats::new(1, CLOCK_RATE, 0),
            sent: SendStats::new(2, CLOCK_RATE),
            payload_bytes: config.payload_bytes,
        }
    }

    /// Lets time pass; the consumer pulls on every tick.
    fn wait(&mut self, time: Duration) {
        self.now += time;
        while self.pulled <= self.now {
            match self.jitter.pull(self.pulled) {
                Pull::Packet(played) => assert!(played.payload.len() <= self.payload_bytes),
                Pull::Lost { ticks, .. } => assert!(ticks > 0, "nothing is lost"),
                Pull::Empty => {}
            }
            let _ = self.keys.handle_timeout(self.pulled);
            self.pulled += TICK;
        }
    }

    fn receive(&mut self, datagram: &[u8]) {
        match classify(datagram) {
            Datagram::Rtcp => self.receive_control(datagram),
            Datagram::Rtp => self.receive_media(datagram),
            _ => {}
        }
    }

    fn receive_media(&mut self, datagram: &[u8]) {
        let _ = Packet::parse_protected(datagram).map(|it| it.header_len());
        let Ok(packet) = Packet::parse(datagram) else { return };
        assert_eq!(
            packet.header_len() + packet.payload().len() + packet.padding(),
            datagram.len(),
            "header, payload and padding are the packet"
        );
        let _ = (packet.csrcs().count(), packet.extension());
        for (_, element) in packet.extension_elements() {
            assert!(element.len() <= datagram.len());
        }
        let (sequence, timestamp) = (packet.sequence(), packet.timestamp());
        let payload = packet.payload();
        self.heard.on_packet(self.now, sequence, timestamp, payload.len());
        let (marker, payload_type) = (packet.marker(), packet.payload_type());
        if payload_type == 101 {
            assert!(self.keys.handle_packet(self.now, timestamp, payload).count() <= 3);
        } else {
            self.jitter.push(self.now, sequence, timestamp, marker, payload_type, payload);
        }
        rewritten(datagram);
    }

    fn receive_control(&mut self, datagram: &[u8]) {
        let Ok(compound) = Compound::parse(datagram) else { return };
        let wall = WallTime::from_unix_millis(1_800_000_000_000) + self.now.since(Instant::ZERO);
        for packet in compound.packets() {
            match packet {
                Rtcp::Report { sender, blocks, .. } => {
                    if let Some(sender) = sender {
                        self.heard.on_sender_report(self.now, &sender);
                    }
                    for block in blocks {
                        let _ = block.round_trip(NtpTime::from(wall));
                        self.sent.on_report_block(wall, &block);
                    }
                }
                Rtcp::SourceDescription(items) => {
                    for (_, _, text) in items {
                        assert!(text.len() <= 255);
                    }
                }
                Rtcp::Goodbye(goodbye) => drop(goodbye.ssrcs().count()),
                _ => {}
            }
        }
        let _ = self.sent.remote();
        self.report();
    }

    /// Our own report of what was heard is one that we would take.
    fn report(&mut self) {
        let blocks = [self.heard.report_block(self.now)];
        let report =
            rtp::Report { ssrc: 2, sender: None, blocks: &blocks, cname: "fuzz", goodbye: true };
        let mut out = [0; 256];
        let written = report.write(&mut out);
        let parsed = written.map(|length| Compound::parse(&out[..length]).is_ok());
        assert_eq!(parsed, Ok(true));
    }

    fn check(&self) {
        let stats = self.jitter.stats();
        assert!(stats.played + stats.discarded <= stats.stored, "{stats:?}");
        assert!(self.jitter.depth() <= Duration::from_secs(10), "{:?}", self.jitter.depth());
        let loss = self.heard.loss();
        assert!((0.0..=1.0).contains(&loss), "{loss}");
        let mos = rtp::mos(rtp::Impairment::G711, loss, self.heard.jitter());
        assert!((1.0..=4.5).contains(&mos), "{mos}");
    }
}

/// What a relay changes in a header is what is read back.
fn rewritten(datagram: &[u8]) {
    let mut copy = datagram.to_vec();
    if let Ok(mut packet) = PacketMut::parse(&mut copy) {
        packet.set_marker(true);
        packet.set_payload_type(96);
        packet.set_sequence(7);
        packet.set_timestamp(8);
        packet.set_ssrc(9);
    }
    let read = Packet::parse(&copy)
        .map(|it| (it.marker(), it.payload_type(), it.sequence(), it.timestamp(), it.ssrc()));
    assert_eq!(read, Ok((true, 96, 7, 8, 9)));
}
