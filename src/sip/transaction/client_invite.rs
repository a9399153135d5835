//! The INVITE client transaction: RFC 3261 section 17.1.1, figure 5, as RFC 6026 section 7.2
//! corrects it, with the CANCEL of section 9.1.

use std::time::Duration;

use super::table::{Action::*, Event, State, Step, to};
use super::timers::GIVE_UP;

pub(super) const fn step(state: State, event: Event) -> Option<Step> {
    match (state, event) {
        // Timers A and B.
        (State::New, Event::Start) => to(State::Calling, &[Send, Repeat, EndAfter(GIVE_UP)]),

        // Timer A doubles without an upper bound; timer B ends it.
        (State::Calling, Event::RetransmitDue) => {
            to(State::Calling, &[SendAgain, RepeatSlower(Duration::MAX)])
        }
        (State::Calling, Event::Provisional) => {
            to(State::Proceeding, &[StopRepeating, StopEnd, SendCancel, Deliver])
        }
        // RFC 3261 section 9.1: no CANCEL before a provisional response.
        (State::Calling, Event::Cancel) => to(State::Calling, &[CancelLater]),

        (State::Proceeding, Event::Provisional) => to(State::Proceeding, &[Deliver]),
        (State::Proceeding, Event::Cancel) => to(State::Proceeding, &[CancelLater, SendCancel]),

        // In Proceeding the end timer runs only after a CANCEL: RFC 3261 section 9.1 gives the
        // peer 64*T1 to answer the INVITE.
        (State::Calling | State::Proceeding, Event::EndDue) => {
            to(State::Terminated, &[ReportTimeout])
        }
        // Timer M.
        (State::Calling | State::Proceeding, Event::Success) => {
            to(State::Accepted, &[StopRepeating, StopEnd, EndAfter(GIVE_UP), Deliver])
        }
        // Timer D.
        (State::Calling | State::Proceeding, Event::Failure) => {
            to(State::Completed, &[StopRepeating, StopEnd, SendAck, Deliver, Linger(GIVE_UP)])
        }
        (State::Calling | State::Proceeding, Event::FlowFailed) => {
            to(State::Terminated, &[ReportFailed])
        }

        (State::Completed, Event::Failure) => to(State::Completed, &[SendAck]),
        (State::Accepted, Event::Success) => to(State::Accepted, &[Deliver]),
        (State::Completed | State::Accepted, Event::EndDue) => to(State::Terminated, &[]),
        _ => None,
    }
}
