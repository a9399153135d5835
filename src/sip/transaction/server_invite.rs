//! The INVITE server transaction: RFC 3261 section 17.2.1, figure 7, as RFC 6026 section 7.1
//! corrects it.

use super::table::{Action::*, Event, State, Step, to};
use super::timers::{GIVE_UP, T2, T4};

pub(super) const fn step(state: State, event: Event) -> Option<Step> {
    match (state, event) {
        (State::New, Event::Start) => to(State::Proceeding, &[StartTrying]),

        (State::Proceeding, Event::Request) => to(State::Proceeding, &[SendAgain]),
        (State::Proceeding, Event::TryingDue) => to(State::Proceeding, &[SendTrying]),
        (State::Proceeding, Event::Provisional) => to(State::Proceeding, &[StopTrying, Send]),
        // Timer L. Repeating the 2xx is the owner's work (section 13.3.1.4): `AckWait`.
        (State::Proceeding, Event::Success) => {
            to(State::Accepted, &[StopTrying, Send, EndAfter(GIVE_UP)])
        }
        // Timers G and H.
        (State::Proceeding, Event::Failure) => {
            to(State::Completed, &[StopTrying, Send, Repeat, EndAfter(GIVE_UP)])
        }
        (State::Proceeding, Event::FlowFailed) => to(State::Proceeding, &[ReportFlowLost]),

        // What is refused in silence: repetitions find nobody until the client has given up.
        (State::Proceeding, Event::Ignore) => to(State::Ignored, &[StopTrying, EndAfter(GIVE_UP)]),
        (State::Ignored, Event::EndDue) => to(State::Terminated, &[]),

        (State::Completed, Event::Request) => to(State::Completed, &[SendAgain]),
        (State::Completed, Event::RetransmitDue) => {
            to(State::Completed, &[SendAgain, RepeatSlower(T2)])
        }
        // Timer I.
        (State::Completed, Event::Ack) => to(State::Confirmed, &[StopRepeating, Linger(T4)]),
        (State::Completed, Event::EndDue) => to(State::Terminated, &[ReportNoAck]),

        (State::Confirmed, Event::EndDue) => to(State::Terminated, &[]),

        // RFC 6026 section 7.1: a repeated INVITE is absorbed, an ACK is the owner's, and so is
        // every 2xx that the owner sends again.
        (State::Accepted, Event::Ack) => to(State::Accepted, &[Deliver]),
        (State::Accepted, Event::Success) => to(State::Accepted, &[SendAgain]),
        (State::Accepted, Event::EndDue) => to(State::Terminated, &[]),
        _ => None,
    }
}
