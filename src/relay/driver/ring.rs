//! The memory that the kernel reads and writes for [`super::uring`], behind calls that are safe:
//! the submission and completion rings, a pool of receive buffers, and slots for what is sent.
//!
//! This file holds all `unsafe` code of the relay but a prefetch ([`super::ahead`]). What makes it
//! sound: all memory that the kernel is told of belongs to [`Ring`] and keeps its address; a
//! receive buffer is either the kernel's or ours, and is read only while it is ours; a send slot is
//! written only while no operation uses it, and one that may not wait is over once the kernel has
//! taken it from the queue; and the memory is freed only after every operation is over ([`Ring`]'s
//! `Drop`).

#![allow(unsafe_code, reason = "the kernel works on memory of ours while we go on (io_uring)")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use base::limit;
use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use crate::path::receive::BUFFER_BYTES;
use crate::srtp;

/// Operations that one enter submits; above that there is one more enter.
const SUBMISSIONS: u32 = 512;
/// Completions that fit; four ticks at a million packets a second. The kernel keeps what overflows.
const COMPLETIONS: u32 = 4_096;
/// Receive buffers: 5 ms at 100,000 packets a second. Where they run out, datagrams wait in their
/// sockets.
const BUFFERS: u16 = 512;
/// The kernel's header before a datagram: lengths of name, control data and payload, and flags.
const HEADER: usize = 16;
/// Room for the source's address: a `sockaddr_in6`.
const NAME: usize = 28;
/// Bytes of a receive buffer: an odd number of cache lines, so that buffers spread over the cache.
const BUFFER_STRIDE: usize = 25 * 64;
/// Sends under way.
const SLOTS: u16 = 512;
/// Bytes of a send slot: an address and a protected packet.
const SLOT_STRIDE: usize = 27 * 64;
/// Where the datagram begins in a slot.
const SLOT_DATA: usize = 64;
/// Largest datagram that is sent.
const SEND_BYTES: usize = limit::RTP_PACKET_BYTES.get() + srtp::OVERHEAD;
const GROUP: u16 = 0;
/// User data of every send; a receive's data are its owner's.
const SEND: u64 = 1 << 63;
/// User data of a cancellation, whose completion says nothing.
const CANCEL: u64 = (1 << 63) - 1;

const _: () = assert!(HEADER + NAME + BUFFER_BYTES <= BUFFER_STRIDE);
const _: () = assert!(SLOT_DATA + SEND_BYTES <= SLOT_STRIDE && NAME <= SLOT_DATA);

/// Zeroed memory that keeps its address.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    fn new(bytes: usize) -> io::Result<Self> {
        // The kernel wants the ring of buffers at a page's start.
        let layout = Layout::from_size_align(bytes, 4096).map_err(io::Error::other)?;
        assert!(bytes > 0, "no memory is asked for");
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        Ok(Self { start: start.unwrap_or_else(|| handle_alloc_error(layout)), layout })
    }

    /// The address of a byte within.
    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.layout.size(), "outside of the memory");
        // SAFETY: the offset is inside the allocation.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A socket as an operation names it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// By its descriptor.
    Descriptor(RawFd),
    /// By its place in the ring's own table ([`Ring::register`]), which spares the kernel the
    /// process's table and counting references.
    Registered(u32),
}

impl Target {
    const fn named(self) -> (Fd, squeue::Flags) {
        match self {
            Self::Descriptor(fd) => (Fd(fd), squeue::Flags::empty()),
            Self::Registered(place) => (Fd(place as RawFd), squeue::Flags::FIXED_FILE),
        }
    }
}

/// What the kernel has done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Completion {
    /// A receive or a watch, by its owner's number.
    Event {
        /// The owner's number.
        data: u64,
        /// The kernel's answer: bytes, or a negative error.
        result: i32,
        /// The buffer with the datagram. It is ours until given back.
        buffer: Option<u16>,
        /// Whether the operation goes on.
        more: bool,
    },
    /// A send was refused; of those that went out nothing is said.
    Refused,
}

/// See the module.
pub(super) struct Ring {
    /// Dropped before the memory that it uses.
    io: ManuallyDrop<IoUring>,
    /// Operations without their last completion.
    under_way: u32,
    /// The kernel's ring of free receive buffers, and the buffers.
    entries: ManuallyDrop<Memory>,
    buffers: ManuallyDrop<Memory>,
    /// Whether a buffer is ours.
    is_ours: Box<[bool]>,
    tail: u16,
    /// What the kernel is told about names; read when a receive is submitted.
    shape: Box<libc::msghdr>,
    slots: ManuallyDrop<Memory>,
    /// Slots with sends that are queued, from the first one on.
    filled: u16,
    /// How often the queue has been emptied.
    batch: u64,
    /// Places in the table of registered sockets.
    places: u32,
}

impl Ring {
    /// A ring for the calling thread alone, with the quickest flags that the kernel has.
    /// It keeps room for so many registered sockets, where the kernel has it.
    pub(super) fn new(sockets: u32) -> io::Result<Self> {
        let io = build()?;
        let has = io.params();
        if !(has.is_feature_ext_arg()
            && has.is_feature_nodrop()
            && has.is_feature_skip_cqe_on_success())
        {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // Registering saves time and is no need.
        let is_made = sockets > 0 && io.submitter().register_files_sparse(sockets).is_ok();
        // SAFETY: all bytes zero is a valid `msghdr` (null pointers, lengths of zero).
        let mut shape: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        shape.msg_namelen = NAME as libc::socklen_t;
        let mut ring = Self {
            io: ManuallyDrop::new(io),
            under_way: 0,
            entries: ManuallyDrop::new(Memory::new(usize::from(BUFFERS) * 16)?),
            buffers: ManuallyDrop::new(Memory::new(usize::from(BUFFERS) * BUFFER_STRIDE)?),
            is_ours: vec![true; usize::from(BUFFERS)].into(),
            tail: 0,
            shape,
            slots: ManuallyDrop::new(Memory::new(usize::from(SLOTS) * SLOT_STRIDE)?),
            filled: 0,
            batch: 0,
            places: if is_made { sockets } else { 0 },
        };
        // SAFETY: the entries are page-aligned, of the stated number, and outlive the ring.
        unsafe {
            let address = ring.entries.start.as_ptr() as u64;
            ring.io.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)?;
        }
        (0..BUFFERS).for_each(|buffer| ring.give_back(buffer));
        Ok(ring)
    }

    /// How many receive buffers there are; their numbers are below that.
    pub(super) fn buffers(&self) -> usize {
        self.is_ours.len()
    }

    /// Gives a socket a place in the ring's table; `false` where that has none. The place keeps the
    /// socket open until it is taken away.
    pub(super) fn register(&mut self, place: u32, socket: BorrowedFd<'_>) -> bool {
        let files = [socket.as_raw_fd()];
        place < self.places
            && self.io.submitter().register_files_update(place, &files).is_ok_and(|it| it == 1)
    }

    /// Takes a place away from its socket.
    pub(super) fn unregister(&mut self, place: u32) {
        // It fails only for a place that does not exist.
        let _ = self.io.submitter().register_files_update(place, &[-1]);
    }

    /// Receives from a socket again and again, each datagram with its source, until a completion
    /// says that there is no more. The socket must stay open until that one.
    /// `false` where it cannot be queued.
    pub(super) fn receive(&mut self, socket: Target, data: u64) -> bool {
        let (fd, flags) = socket.named();
        let entry = opcode::RecvMsgMulti::new(fd, &raw const *self.shape, GROUP).build();
        self.begin(&entry.flags(flags).user_data(data))
    }

    /// Says whenever the descriptor becomes readable, until a completion says that it is over.
    /// `false` where it cannot be queued.
    pub(super) fn watch(&mut self, descriptor: BorrowedFd<'_>, data: u64) -> bool {
        let fd = Fd(descriptor.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        self.begin(&entry.user_data(data))
    }

    /// Ends a receive; its last completion follows. `false` where it cannot be queued.
    pub(super) fn cancel(&mut self, data: u64) -> bool {
        self.begin(&opcode::AsyncCancel::new(data).build().user_data(CANCEL))
    }

    /// Sends a datagram with the next enter: to this address, or where the socket is connected to.
    /// `None` where it is too large or no slot is free. The socket must stay open and registered
    /// until [`Self::is_over`] says so of the batch that is returned.
    pub(super) fn send(
        &mut self,
        socket: Target,
        to: Option<SocketAddr>,
        datagram: &[u8],
    ) -> Option<u64> {
        if self.io.submission().is_full() {
            self.enter(0, Duration::ZERO);
        }
        // The entry must find room below: to submit there would empty the slots before this one.
        let is_full = self.filled == SLOTS || self.io.submission().is_full();
        if is_full || datagram.len() > SEND_BYTES {
            return None;
        }
        let start = usize::from(self.filled) * SLOT_STRIDE;
        let bytes = self.slots.at(start + SLOT_DATA);
        // SAFETY: no operation that has not ended has this slot (`emptied`); it has room for
        // `SEND_BYTES`, and the source is memory of somebody else.
        unsafe { bytes.copy_from_nonoverlapping(datagram.as_ptr(), datagram.len()) };
        let (fd, flags) = socket.named();
        // It is sent or refused while it is submitted: audio does not wait for room.
        let mut entry = opcode::Send::new(fd, bytes, datagram.len() as u32)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        if let Some(to) = to {
            let (address, length) = written(to);
            let name = self.slots.at(start);
            // SAFETY: as above; the first part of a slot has room for an address.
            unsafe { name.copy_from_nonoverlapping(address.as_ptr(), length) };
            entry = entry.dest_addr(name.cast()).dest_addr_len(length as libc::socklen_t);
        }
        let entry = entry.build().flags(flags | squeue::Flags::SKIP_SUCCESS).user_data(SEND);
        self.filled += 1;
        self.submit(&entry).then_some(self.batch)
    }

    /// Whether the sends of a batch are over.
    pub(super) fn is_over(&self, batch: u64) -> bool {
        batch < self.batch
    }

    /// Submits what is queued, if that is so much, without looking for completions.
    pub(super) fn flush(&mut self, least: usize) {
        if self.io.submission().len() >= least {
            // What is not taken stays in the queue for the next enter.
            let _ = self.io.submit();
            self.emptied();
        }
    }

    /// Where the kernel has taken all that was queued, all sends are over: one that may not wait
    /// (`MSG_DONTWAIT`) is carried out or refused while it is taken, and never later.
    fn emptied(&mut self) {
        if self.io.submission().is_empty() {
            self.filled = 0;
            self.batch += 1;
        }
    }

    /// Submits what is queued and waits until `want` completions are there or so much time has
    /// passed.
    pub(super) fn enter(&mut self, want: usize, most: Duration) {
        let queued = self.io.submission().len();
        let want = want.min(COMPLETIONS as usize / 2);
        let time = Timespec::new().sec(most.as_secs()).nsec(most.subsec_nanos());
        let arguments = SubmitArgs::new().timespec(&time);
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // Whatever ends it early (time, a signal, completions that wait to be taken), what was not
        // submitted stays in the queue and the next enter takes it.
        // SAFETY: the argument is an `io_uring_getevents_arg` as the flag says, alive in the call.
        let _ = unsafe {
            let (queued, want) = (queued as u32, want as u32);
            self.io.submitter().enter(queued, want, flags.bits(), Some(&arguments))
        };
        self.emptied();
    }

    /// The next completion.
    pub(super) fn next(&mut self) -> Option<Completion> {
        loop {
            let entry = self.io.completion().next()?;
            let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            if data == SEND {
                return Some(Completion::Refused);
            }
            let more = cqueue::more(flags);
            self.under_way = self.under_way.saturating_sub(u32::from(!more));
            if data == CANCEL {
                continue;
            }
            let buffer = cqueue::buffer_select(flags);
            if let Some(is_ours) = buffer.and_then(|it| self.is_ours.get_mut(usize::from(it))) {
                *is_ours = true;
            }
            return Some(Completion::Event { data, result, buffer, more });
        }
    }

    /// The datagram in a buffer of ours, cut to what fits, and its source.
    pub(super) fn datagram(&self, buffer: u16) -> Option<(&[u8], SocketAddr)> {
        if self.is_ours.get(usize::from(buffer)) != Some(&true) {
            return None;
        }
        let start = self.buffers.at(usize::from(buffer) * BUFFER_STRIDE);
        // SAFETY: the buffer is ours, so the kernel does not write to it until `give_back`, which
        // takes `&mut self`; it was zeroed first, so its bytes are initialised.
        parsed(unsafe { std::slice::from_raw_parts(start, BUFFER_STRIDE) })
    }

    /// Gives a buffer back to the kernel.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let Some(is_ours) = self.is_ours.get_mut(usize::from(buffer)) else { return };
        if !std::mem::replace(is_ours, false) {
            return;
        }
        let place = usize::from(self.tail & (BUFFERS - 1));
        let base = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the place is within the ring. The kernel reads entries between its head and the
        // tail only; as many buffers as there are places cannot make the tail overtake the head,
        // so this entry is not among them until the tail is stored. The tail lies in the first
        // entry's reserved bytes, which the setters do not touch, and is two bytes, aligned.
        unsafe {
            let entry = &mut *base.add(place);
            entry.set_addr(self.buffers.at(usize::from(buffer) * BUFFER_STRIDE) as u64);
            entry.set_len(BUFFER_STRIDE as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Queues an operation that says when it is over.
    fn begin(&mut self, entry: &squeue::Entry) -> bool {
        let is_queued = self.submit(entry);
        self.under_way += u32::from(is_queued);
        is_queued
    }

    /// Queues an operation; a full queue is submitted first. `false` where the kernel does not
    /// take the queue either.
    fn submit(&mut self, entry: &squeue::Entry) -> bool {
        for _ in 0..2 {
            // SAFETY: what the operations point to is the ring's own memory (see the module) and
            // stays until they have completed; descriptors are kept open by the ring's user.
            if unsafe { self.io.submission().push(entry) }.is_ok() {
                return true;
            }
            self.enter(0, Duration::ZERO);
        }
        false
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.enter(0, Duration::ZERO);
        let _ = self.io.submitter().register_sync_cancel(None, CancelBuilder::any());
        for _ in 0..100 {
            while self.next().is_some() {}
            if self.under_way == 0 {
                break;
            }
            self.enter(1, Duration::from_millis(10));
        }
        let _ = self.io.submitter().unregister_buf_ring(GROUP);
        // A ring that is closed lets go of its sockets later, on a thread of the kernel's: ports
        // would stay taken.
        if self.places > 0 {
            let _ = self.io.submitter().unregister_files();
        }
        // SAFETY: each is dropped once, here, the ring first. Where an operation could not be
        // ended, its memory stays: a leak instead of a write into somebody else's memory.
        unsafe {
            ManuallyDrop::drop(&mut self.io);
            if self.under_way == 0 {
                ManuallyDrop::drop(&mut self.entries);
                ManuallyDrop::drop(&mut self.buffers);
                ManuallyDrop::drop(&mut self.slots);
            }
        }
    }
}

/// The quickest ring that this kernel builds: newer flags save interrupts and locks.
fn build() -> io::Result<IoUring> {
    let mut last = io::ErrorKind::Unsupported.into();
    for attempt in 0..3 {
        let mut builder = IoUring::builder();
        // One entry that is refused holds nobody else up (Linux 5.18).
        builder.setup_cqsize(COMPLETIONS).setup_submit_all();
        match attempt {
            0 => builder.setup_single_issuer().setup_defer_taskrun(), // Linux 6.1
            1 => builder.setup_single_issuer().setup_coop_taskrun(),  // Linux 6.0
            _ => builder.setup_coop_taskrun(),                        // Linux 5.19
        };
        match builder.build(SUBMISSIONS) {
            Ok(io) => return Ok(io),
            Err(error) => last = error,
        }
        if last.raw_os_error() != Some(libc::EINVAL) {
            break;
        }
    }
    Err(last)
}

/// An address as the kernel takes it, and its length.
fn written(address: SocketAddr) -> ([u8; NAME], usize) {
    let mut bytes = [0; NAME];
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&address.ip().octets());
            (bytes, 16)
        }
        SocketAddr::V6(address) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&address.flowinfo().to_be_bytes());
            bytes[8..24].copy_from_slice(&address.ip().octets());
            bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
            (bytes, NAME)
        }
    }
}

/// What a receive put into a buffer: header, source, datagram.
fn parsed(bytes: &[u8]) -> Option<(&[u8], SocketAddr)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let (name, payload) = rest.split_first_chunk::<NAME>()?;
    let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let port = u16::from_be_bytes([name[2], name[3]]);
    let family = i32::from(u16::from_ne_bytes([name[0], name[1]]));
    let source = if family == libc::AF_INET {
        let octets: [u8; 4] = name[4..8].try_into().ok()?;
        SocketAddr::new(IpAddr::from(octets), port)
    } else if family == libc::AF_INET6 {
        let octets: [u8; 16] = name[8..24].try_into().ok()?;
        let scope = u32::from_ne_bytes([name[24], name[25], name[26], name[27]]);
        std::net::SocketAddrV6::new(octets.into(), port, 0, scope).into()
    } else {
        return None;
    };
    Some((&payload[..length.min(payload.len())], source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_written() {
        for text in ["192.0.2.1:4000", "[2001:db8::1]:65535", "[fe80::2%7]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut bytes = vec![0; HEADER];
            bytes[8] = 3;
            bytes.extend(written(address).0);
            bytes.extend([1, 2, 3, 4]);
            assert_eq!(parsed(&bytes), Some((&[1, 2, 3][..], address)), "{text}");
        }
    }

    #[test]
    fn what_is_no_datagram_is_none() {
        assert_eq!(parsed(&[0; HEADER + NAME - 1]), None);
        assert_eq!(parsed(&[0; HEADER + NAME + 10]), None, "no family");
    }
}
