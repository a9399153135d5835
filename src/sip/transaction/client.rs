//! The non-INVITE client transaction: RFC 3261 section 17.1.2, figure 6.

use super::table::{Action::*, Event, State, Step, to};
use super::timers::{GIVE_UP, T2, T4};

pub(super) const fn step(state: State, event: Event) -> Option<Step> {
    match (state, event) {
        // Timers E and F.
        (State::New, Event::Start) => to(State::Trying, &[Send, Repeat, EndAfter(GIVE_UP)]),
        (State::Trying, Event::RetransmitDue) => to(State::Trying, &[SendAgain, RepeatSlower(T2)]),
        (State::Proceeding, Event::RetransmitDue) => {
            to(State::Proceeding, &[SendAgain, RepeatAfter(T2)])
        }
        (State::Trying | State::Proceeding, Event::Provisional) => {
            to(State::Proceeding, &[Deliver])
        }
        // Timer K.
        (State::Trying | State::Proceeding, Event::Success | Event::Failure) => {
            to(State::Completed, &[StopRepeating, StopEnd, Deliver, Linger(T4)])
        }
        (State::Trying | State::Proceeding, Event::EndDue) => {
            to(State::Terminated, &[ReportTimeout])
        }
        (State::Trying | State::Proceeding, Event::FlowFailed) => {
            to(State::Terminated, &[ReportFailed])
        }
        (State::Completed, Event::EndDue) => to(State::Terminated, &[]),
        _ => None,
    }
}
