//! A DTLS 1.2 client by hand, for tests: it says what no library can be brought to say, such as a
//! ClientHello that offers DTLS 1.3 with an ML-KEM share in several pieces, and shares no code
//! with the libraries behind the association.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{
    ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral,
};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base::Secret;
use media::DtlsRole;
use rtp::sdes::Suite;

use super::assemble::Assembler;
use super::record::{HANDSHAKE, Next, Pieces, Record, Records, message_header, write_record};
use super::{Identity, Keys};

/// What the client does otherwise than it should.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) no_extended_master_secret: bool,
    pub(super) no_certificate: bool,
    pub(super) no_certificate_verify: bool,
    pub(super) foreign_signature: bool,
}

pub(super) struct Client {
    identity: Identity,
    pub(super) faults: Faults,
    /// SRTP protection profiles, in its order.
    pub(super) profiles: Vec<u16>,
    random: [u8; 32],
    cookie: Vec<u8>,
    /// Messages since the ClientHello that counts, as if each had come in one piece.
    transcript: Vec<u8>,
    next_message: u16,
    sequence: u64,
    assembler: Assembler,
    server_random: Vec<u8>,
    server_share: Vec<u8>,
    pub(super) is_asked_again: bool,
    pub(super) is_server_done: bool,
    master: Vec<u8>,
    /// Sequence number of the next protected record.
    protected: u64,
    pub(super) keys: Option<Keys>,
}

impl Client {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            faults: Faults::default(),
            profiles: vec![7, 1],
            random: [7; 32],
            cookie: Vec::new(),
            transcript: Vec::new(),
            next_message: 0,
            sequence: 0,
            assembler: Assembler::default(),
            server_random: Vec::new(),
            server_share: Vec::new(),
            is_asked_again: false,
            is_server_done: false,
            master: Vec::new(),
            protected: 0,
            keys: None,
        }
    }

    /// The ClientHello, in records with pieces of at most so many bytes.
    pub(super) fn hello(&mut self, piece: usize) -> Vec<Vec<u8>> {
        let mut body = [&[0xfe, 0xfd][..], &self.random, &[0]].concat();
        body.extend(vector(1, &self.cookie));
        body.extend([0, 2, 0xc0, 0x2b, 1, 0]);
        let mut extensions = Vec::new();
        let mut extension = |kind: u16, value: &[u8]| {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(vector(2, value));
        };
        // X25519MLKEM768 with its share of 1,216 bytes, X25519 and P-256.
        let shares =
            [&[0x11, 0xec][..], &vector(2, &[0x5a; 1_216]), &[0, 29], &vector(2, &[9; 32])];
        extension(51, &vector(2, &shares.concat()));
        extension(43, &[4, 0xfe, 0xfc, 0xfe, 0xfd]);
        extension(10, &[0, 6, 0x11, 0xec, 0, 29, 0, 23]);
        extension(11, &[1, 0]);
        extension(13, &[0, 4, 4, 3, 8, 4]);
        let profiles: Vec<u8> = self.profiles.iter().flat_map(|it| it.to_be_bytes()).collect();
        extension(14, &[&vector(2, &profiles)[..], &[0]].concat());
        if !self.faults.no_extended_master_secret {
            extension(23, &[]);
        }
        extension(0xff01, &[0]);
        body.extend(vector(2, &extensions));
        self.transcript.clear();
        self.message(1, &body, piece)
    }

    /// A message, in records with pieces of at most so many bytes.
    fn message(&mut self, kind: u8, body: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let number = self.next_message;
        self.next_message += 1;
        let whole = message_header(kind, number, body.len());
        self.transcript.extend([&whole, body].concat());
        let pieces = body.chunks(piece).enumerate().map(|(index, bytes)| {
            let mut header = whole;
            header[6..9].copy_from_slice(&u24(index * piece));
            header[9..12].copy_from_slice(&u24(bytes.len()));
            let mut record = Vec::new();
            write_record(&mut record, HANDSHAKE, self.sequence, &[&header, bytes]);
            self.sequence += 1;
            record
        });
        pieces.collect()
    }

    pub(super) fn receive(&mut self, datagram: &[u8]) {
        for next in Records(datagram) {
            let Next::Record(record) = next else { continue };
            if record.epoch == 1 {
                self.finished(&record);
            } else if record.kind == HANDSHAKE {
                for piece in Pieces(record.fragment) {
                    self.assembler.take(&piece);
                }
                while let Some(message) = self.assembler.pop() {
                    let length = message.body.len();
                    self.heard(message.kind, &message.body);
                    if message.kind != 3 {
                        let header = message_header(message.kind, message.number, length);
                        self.transcript.extend([&header, &message.body[..]].concat());
                    }
                }
            }
        }
    }

    fn heard(&mut self, kind: u8, body: &[u8]) {
        match kind {
            3 => {
                self.cookie = body[3..].to_vec();
                self.is_asked_again = true;
            }
            2 => self.server_random = body[2..34].to_vec(),
            12 => self.server_share = body.to_vec(),
            14 => self.is_server_done = true,
            _ => {}
        }
    }

    /// The client's second flight, in one datagram.
    pub(super) fn answer(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        if !self.faults.no_certificate {
            let list = vector(3, &vector(3, self.identity.certificate()));
            records.extend(self.message(11, &list, 4_000));
        }
        let secret = self.key_exchange(&mut records);
        let hash = digest(&SHA256, &self.transcript);
        self.master = prf(&secret, "extended master secret", hash.as_ref(), 48);
        if !self.faults.no_certificate && !self.faults.no_certificate_verify {
            let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
            let key = EcdsaKeyPair::from_pkcs8(algorithm, self.identity.key()).unwrap();
            let foreign = [&self.transcript[..], b"!"].concat();
            let signed = if self.faults.foreign_signature { &foreign } else { &self.transcript };
            let signature = key.sign(&SystemRandom::new(), signed).unwrap();
            let body = [&[4, 3][..], &vector(2, signature.as_ref())].concat();
            records.extend(self.message(15, &body, 4_000));
        }
        let hash = digest(&SHA256, &self.transcript);
        let proof = prf(&self.master, "client finished", hash.as_ref(), 12);
        let mut last = Vec::new();
        write_record(&mut last, 20, self.sequence, &[&[1]]);
        records.push(last);
        let header = message_header(20, self.next_message, proof.len());
        let finished = [&header, &proof[..]].concat();
        records.push(self.protect(HANDSHAKE, &finished));
        self.transcript.extend(finished);
        records.concat()
    }

    fn key_exchange(&mut self, records: &mut Vec<Vec<u8>>) -> Vec<u8> {
        let group = u16::from_be_bytes([self.server_share[1], self.server_share[2]]);
        let algorithm = if group == 29 { &X25519 } else { &ECDH_P256 };
        let share = &self.server_share[4..][..usize::from(self.server_share[3])];
        let key = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).unwrap();
        let public = key.compute_public_key().unwrap();
        let peer = UnparsedPublicKey::new(algorithm, share.to_vec());
        records.extend(self.message(16, &vector(1, public.as_ref()), 4_000));
        agree_ephemeral(key, peer, (), |secret| Ok(secret.to_vec())).unwrap()
    }

    /// The keys of a direction: AEAD key and fixed part of the nonce.
    fn write_keys(&self, is_client: bool) -> (LessSafeKey, [u8; 4]) {
        let seed = [&self.server_random[..], &self.random].concat();
        let block = prf(&self.master, "key expansion", &seed, 40);
        let at = usize::from(!is_client);
        let key = UnboundKey::new(&AES_128_GCM, &block[16 * at..][..16]).unwrap();
        (LessSafeKey::new(key), block[32 + 4 * at..][..4].try_into().unwrap())
    }

    /// A protected record of epoch 1.
    pub(super) fn protect(&mut self, kind: u8, text: &[u8]) -> Vec<u8> {
        let (key, fixed) = self.write_keys(true);
        let mut place = self.protected.to_be_bytes();
        place[..2].copy_from_slice(&[0, 1]);
        self.protected += 1;
        let nonce = [&fixed[..], &place].concat();
        let nonce = Nonce::assume_unique_for_key(nonce.try_into().unwrap());
        let mut sealed = text.to_vec();
        let aad = Aad::from(additional(place, kind, text.len()));
        key.seal_in_place_append_tag(nonce, aad, &mut sealed).unwrap();
        let length = u16::try_from(8 + sealed.len()).unwrap().to_be_bytes();
        [&[kind, 0xfe, 0xfd][..], &place, &length, &place, &sealed].concat()
    }

    /// The server's Finished; checks its proof.
    fn finished(&mut self, record: &Record<'_>) {
        if record.kind != HANDSHAKE || self.keys.is_some() {
            return;
        }
        let (key, fixed) = self.write_keys(false);
        let place: [u8; 8] = record.bytes[3..11].try_into().unwrap();
        let nonce = [&fixed[..], &record.fragment[..8]].concat();
        let nonce = Nonce::assume_unique_for_key(nonce.try_into().unwrap());
        let mut text = record.fragment[8..].to_vec();
        let aad = Aad::from(additional(place, record.kind, text.len() - 16));
        let text = key.open_in_place(nonce, aad, &mut text).unwrap();
        let hash = digest(&SHA256, &self.transcript);
        assert_eq!(text[12..], prf(&self.master, "server finished", hash.as_ref(), 12));
        let suite = Suite::AeadAes128Gcm;
        let seed = [&self.random[..], &self.server_random].concat();
        let material = prf(&self.master, "EXTRACTOR-dtls_srtp", &seed, Keys::material_len(suite));
        self.keys = Keys::cut(suite, DtlsRole::Active, &Secret::new(material));
    }
}

fn additional(place: [u8; 8], kind: u8, length: usize) -> [u8; 13] {
    let length = u16::try_from(length).unwrap().to_be_bytes();
    [&place[..], &[kind, 0xfe, 0xfd], &length].concat().try_into().unwrap()
}

/// The pseudo-random function of TLS 1.2 (RFC 5246 section 5).
fn prf(secret: &[u8], label: &str, seed: &[u8], length: usize) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let seed = [label.as_bytes(), seed].concat();
    let mut a = hmac::sign(&key, &seed);
    let mut out = Vec::new();
    while out.len() < length {
        out.extend_from_slice(hmac::sign(&key, &[a.as_ref(), &seed].concat()).as_ref());
        a = hmac::sign(&key, a.as_ref());
    }
    out.truncate(length);
    out
}

/// A vector behind its length of so many bytes.
fn vector(width: usize, bytes: &[u8]) -> Vec<u8> {
    [&bytes.len().to_be_bytes()[8 - width..], bytes].concat()
}

fn u24(number: usize) -> [u8; 3] {
    number.to_be_bytes()[5..].try_into().unwrap()
}
