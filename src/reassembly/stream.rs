//! [`Stream`]: the bytes that one side of a TCP connection sends, put in order.
//!
//! Contract: what is told covers the stream from offset 0 without a hole and without overlap,
//! each byte once, as data or as a gap, in order, and then its end, once. Sequence numbers are
//! compared modulo 2^32 (RFC 9293 section 3.4); offsets are 64 bits and only grow.
//!
//! - Offset 0 is the byte after the SYN, or in mid-stream the first byte of the first segment
//!   seen, whatever it carries. What belongs before it and comes later is dropped.
//! - The first copy of a byte stays. A later copy that differs is a conflict, which can be told
//!   only while the first is still held: what was delivered is gone.
//! - A FIN ends the stream where it stands, unless it contradicts what is held already. What
//!   lies behind it is dropped.
//! - A segment that ends outside the window is dropped, because anyone may forge one. When such
//!   segments are all that comes for the gap timeout, the stream goes on at the next one.
//!
//! A stream with a hole needs a [`Segments`] to hold what is behind it; without one it is a few
//! words, and in-order data pass through from the frame.

use std::hint::select_unpredictable;

use super::segments::{Block, Hole, Piece, Pool, Segments};
use crate::flow::observer::Verdict;
use crate::time::Timestamp;

/// What of the configuration a stream goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) side_blocks: usize,
    pub(crate) window_bytes: u64,
    pub(crate) drop_flow: bool,
    pub(crate) gap_timeout_ns: u64,
    pub(crate) acked_gap_timeout_ns: u64,
}

/// One TCP segment, as far as its stream needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    /// Sequence number of its first byte, or of its SYN.
    pub(crate) seq: u32,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    /// The captured bytes of its payload.
    pub(crate) bytes: &'a [u8],
    /// How many bytes it had on the wire, at least as many as were captured.
    pub(crate) wire: u32,
    pub(crate) ts: Timestamp,
}

impl Segment<'_> {
    /// Sequence number of the first byte; a SYN takes one itself.
    fn data_seq(&self) -> u32 {
        self.seq.wrapping_add(u32::from(self.syn))
    }
}

/// Why bytes are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// They did not come in time.
    Late,
    /// No memory to wait for them.
    Overflow,
    /// Cut off by the capture's snapshot length.
    Cut,
}

/// What is remarkable about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// Bytes that the stream is past already; `whole` when the segment had no others.
    Behind { bytes: u64, whole: bool },
    /// Bytes that belong before the stream's start.
    BeforeStart { bytes: u64 },
    /// Bytes behind the FIN.
    BeyondEnd { bytes: u64 },
    /// A segment ahead of a hole, held.
    Held,
    /// A segment outside the window, dropped.
    Far { seq: u32 },
    /// Bytes that differ from those held.
    Conflict { bytes: u64 },
    /// Bytes dropped because no block was left.
    Overflow { bytes: u64 },
}

/// Who is told.
pub(crate) trait Tell {
    fn data(&mut self, offset: u64, bytes: &[u8]);
    fn gap(&mut self, offset: u64, len: u64, cause: Cause);
    fn end(&mut self, offset: u64);
    fn note(&mut self, note: Note);
}

/// What is left to do with a segment.
pub(crate) enum Step<'a> {
    /// Nothing.
    Done,
    /// [`Stream::stored`], with the stream's store or a fresh one.
    Store(Piece<'a>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing of this side was seen.
    #[default]
    Unseen,
    /// It has a start.
    Open,
    /// Its end was told.
    Ended,
}

/// The stream of one side.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Offset of the next byte to be told.
    next: u64,
    /// Offset of the FIN; `u64::MAX` before it is known.
    end: u64,
    /// Offset up to which the receiver acknowledged.
    acked: u64,
    /// Since when only segments outside the window came; `MAX` when the last one was inside.
    far_since: Timestamp,
    /// Sequence number of the next byte to be told.
    next_seq: u32,
    /// Where the caller keeps the stream's store, if it has one.
    pub(crate) store: Option<u32>,
    state: State,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            next: 0,
            end: u64::MAX,
            acked: 0,
            far_since: Timestamp::MAX,
            next_seq: 0,
            store: None,
            state: State::Unseen,
        }
    }
}

impl Stream {
    /// Whether it is open, without a hole and without an end that is known.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        (self.state == State::Open) & self.store.is_none() & (self.end == u64::MAX)
    }

    /// Whether this is the sequence number of the next byte.
    #[inline(always)]
    pub(crate) fn is_next(&self, seq: u32) -> bool {
        self.next_seq == seq
    }

    /// Tells the next bytes of a stream that [is plain](Self::is_plain).
    #[inline(always)]
    pub(crate) fn take_next<T: Tell>(&mut self, bytes: &[u8], tell: &mut T) {
        self.far_since = Timestamp::MAX;
        tell.data(self.next, bytes);
        self.advance(bytes.len() as u64);
    }

    /// Takes a segment of this side. RSTs carry no stream data and do not belong here.
    #[inline]
    pub(crate) fn segment<'a, T: Tell>(
        &mut self,
        segment: &Segment<'a>,
        limits: &Limits,
        tell: &mut T,
    ) -> Step<'a> {
        self.start(segment);
        let mut piece = None;
        if segment.wire > 0 {
            piece = self.place(segment, limits, tell);
        }
        // A FIN has to be compared with what is held.
        if segment.fin && self.store.is_some() {
            let nothing = Piece { at: self.next, bytes: &[], cut: 0, ts: segment.ts };
            return Step::Store(piece.unwrap_or(nothing));
        }
        if let Some(piece) = piece {
            if self.store.is_some() || piece.at != self.next {
                return Step::Store(piece);
            }
            self.take(&piece, tell);
        }
        if segment.fin {
            self.fin(segment, 0, limits);
        }
        self.close(tell);
        Step::Done
    }

    /// Goes on with what [`segment`](Self::segment) left to do.
    pub(crate) fn stored<T: Tell>(
        &mut self,
        segment: &Segment<'_>,
        piece: Piece<'_>,
        store: &mut Segments,
        pool: &mut Pool,
        limits: &Limits,
        tell: &mut T,
    ) -> Verdict {
        if piece.at > self.next && piece.end() > self.horizon(limits) {
            self.skip_all(store, pool, tell);
            self.skip_to(piece.at, Cause::Late, tell);
            self.acked = self.next;
        }
        let mut verdict = Verdict::Keep;
        if !piece.is_empty() {
            self.far_since = Timestamp::MAX;
            verdict = self.hold_or_take(piece, store, pool, limits, tell);
        }
        if segment.fin && verdict == Verdict::Keep {
            self.fin(segment, store.end(), limits);
        }
        self.watch(store, segment.ts);
        self.close(tell);
        verdict
    }

    /// The receiver acknowledged everything before `ack`.
    #[inline]
    pub(crate) fn acknowledged(&mut self, ack: u32, limits: &Limits) {
        let ahead = u64::from(ack.wrapping_sub(self.next_seq));
        // Unscaled by the peer's real window on purpose: it is known only where the handshake
        // was seen. An acknowledgement alone skips nothing, it only lets the hole's clock run faster.
        let is_ahead =
            (self.state == State::Open) & (ahead <= limits.window_bytes.max(ACK_AHEAD_MAX));
        // No branch: who is ahead of what was seen, sender or receiver, changes with every packet.
        let to = select_unpredictable(is_ahead, self.next.saturating_add(ahead), 0);
        self.acked = self.acked.max(to);
    }

    /// Skips the holes that are over age.
    pub(crate) fn expire<T: Tell>(
        &mut self,
        store: &mut Segments,
        pool: &mut Pool,
        now: Timestamp,
        limits: &Limits,
        tell: &mut T,
    ) {
        self.watch(store, now);
        while let Some(front) = store.front() {
            let acked_at = store.hole.acked_at.unwrap_or(Timestamp::MAX);
            let acked_due = acked_at.plus_nanos(limits.acked_gap_timeout_ns);
            let due = deadline(&store.hole, limits).min(acked_due);
            if now < due || due == Timestamp::MAX {
                break;
            }
            let to = front.offset;
            self.skip_to(to, Cause::Late, tell);
            self.take_ready(store, pool, None, tell);
            self.watch(store, now);
        }
        self.close(tell);
    }

    /// The flow is over: what is held is told, then the end.
    pub(crate) fn finish<T: Tell>(
        &mut self,
        store: Option<(&mut Segments, &mut Pool)>,
        tell: &mut T,
    ) {
        if let Some((store, pool)) = store {
            self.skip_all(store, pool, tell);
        }
        if self.state == State::Open {
            if self.end != u64::MAX {
                self.skip_to(self.end, Cause::Late, tell);
            }
            self.end = self.next;
            self.close(tell);
        }
    }

    /// Whether anyone was told of it.
    pub(crate) fn has_told(&self) -> bool {
        self.next > 0 || self.state == State::Ended
    }

    /// Finds where the stream starts. A SYN moves the start of a stream of which nothing is
    /// known yet: a retransmitted one with another number, or one that came after the first ACK.
    #[inline]
    fn start(&mut self, segment: &Segment<'_>) {
        let seq = segment.data_seq();
        let restart = segment.syn && self.next == 0 && self.store.is_none() && self.next_seq != seq;
        if self.state == State::Unseen || (restart && self.state == State::Open) {
            *self = Self { next_seq: seq, state: State::Open, ..Self::default() };
        }
    }

    /// Where a segment's payload goes, less what is behind, beyond or outside.
    #[inline]
    fn place<'a, T: Tell>(
        &mut self,
        segment: &Segment<'a>,
        limits: &Limits,
        tell: &mut T,
    ) -> Option<Piece<'a>> {
        let seq = segment.data_seq();
        let ahead = seq.wrapping_sub(self.next_seq);
        let cut = segment.wire.saturating_sub(segment.bytes.len() as u32);
        let mut piece = Piece {
            at: self.next.saturating_add(u64::from(ahead)),
            bytes: segment.bytes,
            cut,
            ts: segment.ts,
        };
        let back = u64::from(self.next_seq.wrapping_sub(seq));
        let is_behind = ahead > i32::MAX as u32;
        if is_behind && back <= limits.window_bytes {
            piece = self.trim_front(piece, back, tell)?;
        }
        if piece.end() > self.end {
            let kept = piece.until(self.end.max(piece.at));
            let bytes = piece.end() - kept.end();
            tell.note(Note::BeyondEnd { bytes });
            piece = kept;
            if piece.is_empty() {
                return None;
            }
        }
        if piece.at > self.next && piece.end() > self.horizon(limits) {
            let resync = piece.ts >= self.far_since.plus_nanos(limits.gap_timeout_ns)
                && self.far_since != Timestamp::MAX;
            if !resync {
                self.far_since = self.far_since.min(piece.ts);
                tell.note(Note::Far { seq });
                return None;
            }
        }
        Some(piece)
    }

    /// Takes off what the stream is past, `back` bytes at most.
    fn trim_front<'a, T: Tell>(
        &self,
        piece: Piece<'a>,
        back: u64,
        tell: &mut T,
    ) -> Option<Piece<'a>> {
        let len = piece.end() - piece.at;
        let trimmed = back.min(len);
        let before = back.saturating_sub(self.next).min(len);
        if before > 0 {
            tell.note(Note::BeforeStart { bytes: before });
        }
        if trimmed > before {
            tell.note(Note::Behind { bytes: trimmed - before, whole: trimmed == len });
        }
        let rest = Piece { at: 0, ..piece }.from(trimmed);
        (trimmed < len).then_some(Piece { at: self.next, ..rest })
    }

    /// What is in order is told, what is ahead is held, until no block is left for it.
    fn hold_or_take<T: Tell>(
        &mut self,
        mut piece: Piece<'_>,
        store: &mut Segments,
        pool: &mut Pool,
        limits: &Limits,
        tell: &mut T,
    ) -> Verdict {
        let len = piece.end() - piece.at;
        let (mut held, mut conflicts, mut taken) = (0, 0, false);
        let mut verdict = Verdict::Keep;
        // Each round but the last skips a hole, so there are at most as many as blocks, plus one.
        while !piece.is_empty() {
            if piece.at <= self.next {
                piece = piece.from(self.next.min(piece.end()));
                taken |= !piece.is_empty();
                conflicts += self.take_ready(store, pool, Some(&piece), tell);
                break;
            }
            let done = store.insert(pool, limits.side_blocks, &piece);
            held += done.new;
            conflicts += done.conflicts;
            let Some(at) = done.full_at else { break };
            piece = piece.from(at);
            if limits.drop_flow {
                tell.note(Note::Overflow { bytes: piece.end() - piece.at });
                verdict = Verdict::Drop;
                break;
            }
            let to = store.front().map_or(piece.at, |front| front.offset.min(piece.at));
            self.skip_to(to, Cause::Overflow, tell);
            self.take_ready(store, pool, None, tell);
        }
        if conflicts > 0 {
            tell.note(Note::Conflict { bytes: conflicts });
        }
        if held > 0 {
            tell.note(Note::Held);
        } else if !taken && verdict == Verdict::Keep {
            tell.note(Note::Behind { bytes: len, whole: true });
        }
        verdict
    }

    /// Tells what is in order: blocks, and between them `piece`, should it start at or before
    /// the next byte. Returns how many bytes of `piece` differ from the blocks.
    fn take_ready<T: Tell>(
        &mut self,
        store: &mut Segments,
        pool: &mut Pool,
        piece: Option<&Piece<'_>>,
        tell: &mut T,
    ) -> u64 {
        let mut conflicts = 0;
        loop {
            while let Some(block) = store.pop_at(self.next) {
                conflicts += piece.map_or(0, |piece| block.conflicts(piece));
                self.take_block(&block, tell);
                pool.put(block);
            }
            let Some(piece) = piece.filter(|piece| piece.end() > self.next) else { break };
            let stop = store.front().map_or(u64::MAX, |front| front.offset);
            self.take(&piece.from(self.next).until(stop), tell);
        }
        conflicts
    }

    fn take_block<T: Tell>(&mut self, block: &Block, tell: &mut T) {
        match block.bytes() {
            Some(bytes) => {
                tell.data(self.next, bytes);
                self.advance(bytes.len() as u64);
            }
            None => self.skip_to(block.end(), Cause::Cut, tell),
        }
    }

    /// Tells a piece that starts at the next byte.
    #[inline]
    fn take<T: Tell>(&mut self, piece: &Piece<'_>, tell: &mut T) {
        self.far_since = Timestamp::MAX;
        if !piece.bytes.is_empty() {
            tell.data(self.next, piece.bytes);
            self.advance(piece.bytes.len() as u64);
        }
        if piece.cut > 0 {
            self.skip_to(piece.end(), Cause::Cut, tell);
        }
    }

    /// Skips every hole.
    fn skip_all<T: Tell>(&mut self, store: &mut Segments, pool: &mut Pool, tell: &mut T) {
        while let Some(front) = store.front() {
            let to = front.offset;
            self.skip_to(to, Cause::Late, tell);
            self.take_ready(store, pool, None, tell);
        }
    }

    /// Tells everything before `to` as missing.
    fn skip_to<T: Tell>(&mut self, to: u64, cause: Cause, tell: &mut T) {
        let len = to.saturating_sub(self.next);
        if len > 0 {
            tell.gap(self.next, len, cause);
            self.advance(len);
        }
    }

    #[inline]
    fn advance(&mut self, len: u64) {
        self.next = self.next.saturating_add(len);
        self.next_seq = self.next_seq.wrapping_add(len as u32);
    }

    /// One past the last byte that may be held.
    #[inline]
    fn horizon(&self, limits: &Limits) -> u64 {
        self.next.max(self.acked).saturating_add(limits.window_bytes)
    }

    /// Believes a FIN that stands at or behind everything known, inside the window.
    fn fin(&mut self, segment: &Segment<'_>, held_end: u64, limits: &Limits) {
        let seq = segment.data_seq().wrapping_add(segment.wire);
        let at = self.next.saturating_add(u64::from(seq.wrapping_sub(self.next_seq)));
        if self.end == u64::MAX && at >= held_end && at <= self.horizon(limits) {
            self.end = at;
        }
    }

    /// Tells the end once it is reached.
    #[inline]
    fn close<T: Tell>(&mut self, tell: &mut T) {
        if self.next == self.end && self.state == State::Open {
            self.state = State::Ended;
            tell.end(self.next);
        }
    }

    /// Keeps the age of the first hole. A hole that was behind another is as old as what came
    /// first behind it; one that is partly filled stays as old as it was.
    fn watch(&self, store: &mut Segments, now: Timestamp) {
        let Some(front) = store.front() else { return };
        let is_acked = self.acked >= front.offset;
        let since = front.since;
        let hole = &mut store.hole;
        if hole.at != self.next {
            *hole = Hole { at: self.next, since, ..*hole };
        }
        hole.acked_at = if is_acked { hole.acked_at.or(Some(now)) } else { None };
    }
}

/// How far an acknowledgement may be ahead of the stream: the largest window (RFC 7323 section
/// 2.3), for when the sensor lost the data and sees only that the receiver did not.
const ACK_AHEAD_MAX: u64 = 1 << 30;

/// When a hole is skipped at the latest; `MAX` is never.
pub(crate) fn deadline(hole: &Hole, limits: &Limits) -> Timestamp {
    hole.since.plus_nanos(limits.gap_timeout_ns)
}
