//! What the orchestrator is told about the sources of each stripe: where it comes from, and who is too slow.

use core::time::Duration;

use crate::command::{Command, LinkState, Provenance, SourceReport};
use crate::ids::Source;

use super::RelayEngine;
use super::reflex::on_the_wire;

/// After this many objects in a row that came late the source is reported, and how often at most.
const LATE_OBJECTS: u32 = 2;
const LATE_REPORT_INTERVAL: Duration = Duration::from_secs(10);

impl RelayEngine {
    pub(super) fn report_sources(&mut self, t: usize) {
        for number in 0..self.tracks[t].stripes.len() {
            let track = &self.tracks[t];
            let stripe = &track.stripes[number];
            let (source, state) = (stripe.decision.active, track.state(stripe));
            let Some(state) = state.filter(|state| stripe.reported != Some((source, *state)))
            else {
                continue;
            };
            let report = SourceReport {
                track: track.name.clone(),
                stripe: on_the_wire(number),
                source,
                state,
                generation: self.generation,
            };
            self.tracks[t].stripes[number].reported = Some((source, state));
            self.commands.push_back(Command::ReportSource(report));
        }
    }

    /// A source that lives but brings too little is reported: the tree must change, not the player.
    /// `arrived` is when the object's descriptor came: a source is not to be blamed for what was left
    /// undone before it had something to send, nor for the time that it takes to make up for that.
    pub(super) fn judge_source(
        &mut self,
        t: usize,
        number: usize,
        from: Provenance,
        arrived: Duration,
    ) {
        let now = self.now;
        let target = self.tracks[t].target();
        let stripe = &mut self.tracks[t].stripes[number];
        let Some(Source::Peer(peer)) = stripe.decision.active else {
            return;
        };
        let subscribed = stripe.subscribed.get(&peer);
        let begun = subscribed.map(|subscribed| subscribed.resumed);
        let answers_for = begun.is_some_and(|begun| arrived >= begun + target);
        let assigned = stripe.assigned.source == Some(Source::Peer(peer));
        let steady = stripe.decision.flowing && assigned;
        if !steady || !answers_for || from.parent_bytes == from.total() {
            stripe.late_objects = 0;
            return;
        }
        stripe.late_objects += 1;
        let quiet = stripe
            .late_reported
            .is_none_or(|at| now >= at + LATE_REPORT_INTERVAL);
        if stripe.late_objects >= LATE_OBJECTS && quiet {
            stripe.late_reported = Some(now);
            self.report_link(
                peer,
                LinkState::Late,
                "chunks had to come from elsewhere in time",
            );
        }
    }
}
