//! The non-INVITE server transaction: RFC 3261 section 17.2.2, figure 8.

use super::table::{Action::*, Event, State, Step, to};
use super::timers::GIVE_UP;

pub(super) const fn step(state: State, event: Event) -> Option<Step> {
    match (state, event) {
        // RFC 4320 section 4.2: after timer F of the client no answer is of any use; so a request
        // that the owner never answers is forgotten then.
        (State::New, Event::Start) => to(State::Trying, &[EndAfter(GIVE_UP)]),
        (State::Trying | State::Proceeding, Event::EndDue) => to(State::Terminated, &[]),
        (State::Trying | State::Proceeding, Event::Provisional) => to(State::Proceeding, &[Send]),
        // Timer J.
        (State::Trying | State::Proceeding, Event::Success | Event::Failure) => {
            to(State::Completed, &[Send, StopEnd, Linger(GIVE_UP)])
        }
        (State::Trying | State::Proceeding, Event::FlowFailed) => to(state, &[ReportFlowLost]),
        (State::Proceeding | State::Completed, Event::Request) => to(state, &[SendAgain]),
        (State::Completed, Event::EndDue) => to(State::Terminated, &[]),
        _ => None,
    }
}
