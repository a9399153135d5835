//! Stage: to the socket, at the address that the latch allows.

use super::counters::{DropReason, Meter};
use super::latch::Latch;
use super::{Driver, Port};

/// Sends a finished datagram; why not, where it was not sent.
pub(crate) fn send(
    latch: &mut Latch,
    port: Port,
    datagram: &[u8],
    driver: &mut dyn Driver,
) -> Result<(), DropReason> {
    let to = latch.destination().ok_or(DropReason::Unlatched)?;
    if !driver.send(latch.port(port), to, datagram) {
        return Err(DropReason::Refused);
    }
    driver.tally().count(Meter::Sent, 1);
    Ok(())
}
