//! Several files as one capture, in time order.
//!
//! Contract: the next frame is the one of the file whose next frame is the earliest; of equal ones, that of the
//! file given first. Each file is looked into up to [`BATCH_FRAMES_MAX`] frames ahead. A batch ends when a file's
//! lookahead is used up, because looking further may move the bytes that the batch borrows; so a batch may be short,
//! but on average as many frames go out as one file's lookahead brings in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::BATCH_FRAMES_MAX;
use super::file::FileReader;
use crate::frame::{Frame, LinkType};
use crate::time::Timestamp;

/// State of a merge over the readers of as many files.
pub(super) struct Merge {
    files: Vec<Ahead>,
    /// The next frame's time of every file that has one, and the file's index.
    heads: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// The file whose lookahead ran out; at the start, all have: then those from here on.
    dry: Option<usize>,
    started: bool,
}

/// What is known of a file's next frames.
struct Ahead {
    slots: Vec<Slot>,
    next: usize,
}

/// A frame without a borrow: its data by place and length.
#[derive(Clone, Copy)]
struct Slot {
    ts: Timestamp,
    wire_len: u32,
    link: LinkType,
    interface: u16,
    data_at: usize,
    data_bytes: usize,
}

impl Merge {
    /// For this many files.
    pub(super) fn new(files: usize) -> Self {
        let ahead = || Ahead { slots: Vec::with_capacity(BATCH_FRAMES_MAX), next: 0 };
        Self {
            files: (0..files).map(|_| ahead()).collect(),
            heads: BinaryHeap::with_capacity(files),
            dry: None,
            started: false,
        }
    }

    /// Looks ahead where nothing is known. Ends every borrow of the readers' bytes.
    pub(super) fn refill(&mut self, readers: &mut [FileReader]) {
        let dry = match self.dry.take() {
            Some(file) => file..file + 1,
            None if self.started => return,
            None => 0..self.files.len(),
        };
        self.started = true;
        let skipped = dry.start;
        for (index, (ahead, reader)) in
            self.files[dry.clone()].iter_mut().zip(&mut readers[dry]).enumerate()
        {
            let Ahead { slots, next } = ahead;
            *next = 0;
            slots.clear();
            reader.look_ahead(BATCH_FRAMES_MAX, |frame, data_at| {
                let Frame { ts, wire_len, link, interface, data } = frame;
                slots.push(Slot { ts, wire_len, link, interface, data_at, data_bytes: data.len() });
            });
            if let Some(slot) = slots.first() {
                self.heads.push(Reverse((slot.ts, skipped + index)));
            }
        }
    }

    /// Adds the next frames to `frames`, up to [`BATCH_FRAMES_MAX`]; none only when all files are over.
    pub(super) fn take<'a>(&mut self, readers: &'a [FileReader], frames: &mut Vec<Frame<'a>>) {
        while frames.len() < BATCH_FRAMES_MAX && self.dry.is_none() {
            let Some(mut head) = self.heads.peek_mut() else { return };
            let Reverse((_, file)) = *head;
            let (Some(ahead), Some(reader)) = (self.files.get_mut(file), readers.get(file)) else {
                return;
            };
            if let Some(slot) = ahead.slots.get(ahead.next) {
                let data = reader
                    .bytes()
                    .get(slot.data_at..slot.data_at + slot.data_bytes)
                    .unwrap_or_default();
                let Slot { ts, wire_len, link, interface, .. } = *slot;
                frames.push(Frame { ts, wire_len, link, interface, data });
            }
            ahead.next += 1;
            match ahead.slots.get(ahead.next) {
                Some(slot) => *head = Reverse((slot.ts, file)),
                None => {
                    PeekMut::pop(head);
                    self.dry = Some(file);
                }
            }
        }
    }
}
