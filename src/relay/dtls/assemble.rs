//! Handshake messages put together from their pieces, before any of it reaches a back end
//! (RFC 6347 section 4.2.3). Pieces may overlap, repeat and come in any order, also of several
//! messages; whole messages leave in their order.
//!
//! Memory follows what came, not what a header claims; the guard limits what may come.

use std::collections::BTreeMap;

use base::limit;

use super::record::Piece;

/// A whole message.
#[derive(Debug)]
pub(crate) struct Message {
    /// Type.
    pub(crate) kind: u8,
    /// Number.
    pub(crate) number: u16,
    /// What follows the header.
    pub(crate) body: Vec<u8>,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is new.
    New,
    /// Its message has been whole before.
    Old,
    /// It is of no use.
    Refused,
}

#[derive(Debug)]
struct Begun {
    kind: u8,
    length: usize,
    pieces: BTreeMap<usize, Vec<u8>>,
}

/// The messages under way.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// Number of the message that leaves next.
    next: u16,
    begun: BTreeMap<u16, Begun>,
}

impl Assembler {
    /// Takes a piece.
    pub(crate) fn take(&mut self, piece: &Piece<'_>) -> Taken {
        if piece.message < self.next {
            return Taken::Old;
        }
        if usize::from(piece.message - self.next) >= limit::DTLS_MESSAGES.get()
            || piece.length > limit::DTLS_MESSAGE_BYTES.get()
            || (piece.body.len() < limit::DTLS_PIECE_BYTES.get() && !piece.is_last())
        {
            return Taken::Refused;
        }
        let begun = self.begun.entry(piece.message).or_insert_with(|| Begun {
            kind: piece.kind,
            length: piece.length,
            pieces: BTreeMap::new(),
        });
        if (begun.kind, begun.length) != (piece.kind, piece.length) {
            return Taken::Refused;
        }
        let known = begun.pieces.entry(piece.offset).or_default();
        if known.len() < piece.body.len() {
            piece.body.clone_into(known);
        }
        Taken::New
    }

    /// The next message, once it is whole.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let body = self.begun.get(&self.next)?.join()?;
        let begun = self.begun.remove(&self.next)?;
        let number = self.next;
        self.next = self.next.checked_add(1)?;
        Some(Message { kind: begun.kind, number, body })
    }

    /// Whether any message has been whole.
    pub(crate) const fn has_begun(&self) -> bool {
        self.next > 0
    }

    /// Bytes that wait for the rest of their messages.
    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.begun.values().flat_map(|it| it.pieces.values()).map(Vec::len).sum()
    }
}

impl Begun {
    fn join(&self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        for (offset, piece) in &self.pieces {
            // What overlaps is the same in both, or the handshake's hashes will tell.
            let known = body.len().checked_sub(*offset)?;
            body.extend_from_slice(piece.get(known..).unwrap_or_default());
        }
        (body.len() == self.length).then_some(body)
    }
}
