//! A filter's program for the kernel: the same meaning, on frames that have lost their outer VLAN tag.
//!
//! Linux takes the outer tag off every frame before a socket's filter sees it, and keeps it beside the frame. A program that was
//! compiled for the bytes would take a tagged frame for one without a tag. (libpcap's own way, a program compiled for a live
//! capture, does just that: `tcp` then means tagged frames too, which it does not mean on a file.) So the kernel's program
//! begins with the question whether there was a tag. Without one, the bytes are those that we see. With one, the program is the same
//! with every offset behind the addresses made four less, and the tag looked up where it is kept.
//!
//! Contract: it refuses no frame that the program itself would take. What cannot be asked of a frame without its tag (half of
//! the tag, the frame's length) takes the frame, and is left to whoever looks at it next.

use crate::capture::bpf::{INSTRUCTIONS_MAX, Instruction};

/// Where the tag begins in a frame, and how long it is.
const TAG_AT: u32 = 12;
const TAG_BYTES: u32 = 4;

/// What is kept beside a frame (`SKF_AD_OFF` and what is added to it in linux/filter.h).
const BESIDE: u32 = -0x1000i32 as u32;
const TAG_CONTROL: u32 = BESIDE + 44;
const TAG_PRESENT: u32 = BESIDE + 48;
const TAG_PROTOCOL: u32 = BESIDE + 60;

/// The opcodes that matter here (linux/bpf_common.h).
const LOAD_WORD: u16 = 0x20;
const LOAD_LENGTH: u16 = 0x80;
const LOAD_LENGTH_X: u16 = 0x81;
const LOAD_HEADER_LENGTH_X: u16 = 0xb1;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Takes the frame, all of it.
const TAKE: Instruction = Instruction { code: RETURN, jt: 0, jf: 0, k: u32::MAX };

/// The kernel's program for frames of Ethernet; `None` where it would be longer than the kernel takes.
pub(super) fn of_ethernet(program: &[Instruction]) -> Option<Vec<Instruction>> {
    let untagged = whole(program);
    // Three instructions of ours, and the program twice.
    let tagged = match 3 + 2 * untagged.len() <= INSTRUCTIONS_MAX {
        true => untagged.iter().copied().map(behind_tag).collect(),
        false => vec![TAKE],
    };
    let over = u32::try_from(untagged.len()).ok()?;
    let mut all = vec![
        Instruction { code: LOAD_WORD, jt: 0, jf: 0, k: TAG_PRESENT },
        Instruction { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: 0 },
        Instruction { code: JUMP, jt: 0, jf: 0, k: over },
    ];
    all.extend(untagged);
    all.extend(tagged);
    (all.len() <= INSTRUCTIONS_MAX).then_some(all)
}

/// The kernel's program for frames that have no tags; `None` where it would be longer than the kernel takes.
pub(super) fn of_others(program: &[Instruction]) -> Option<Vec<Instruction>> {
    (program.len() <= INSTRUCTIONS_MAX).then(|| whole(program))
}

/// The same program; what it takes, it takes whole.
fn whole(program: &[Instruction]) -> Vec<Instruction> {
    let whole = |&i: &Instruction| if i.code == RETURN && i.k != 0 { TAKE } else { i };
    program.iter().map(whole).collect()
}

/// What an instruction is on a frame whose tag was taken off.
fn behind_tag(instruction: Instruction) -> Instruction {
    /// Loads from the frame: at a place, and at a place and X further.
    const ABSOLUTE: u16 = 0x20;
    const INDEXED: u16 = 0x40;
    let Instruction { code, k, .. } = instruction;
    let is_load = code & 7 == 0;
    let mode = code & 0xe0;
    let bytes = match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        _ => 1,
    };
    let moved = if k >= TAG_AT + TAG_BYTES {
        Instruction { k: k - TAG_BYTES, ..instruction }
    } else {
        TAKE
    };
    match (mode, k) {
        _ if code == LOAD_LENGTH || code == LOAD_LENGTH_X => TAKE,
        _ if code == LOAD_HEADER_LENGTH_X => moved,
        (ABSOLUTE, 0..TAG_AT) if is_load && k + bytes <= TAG_AT => instruction,
        (ABSOLUTE, TAG_AT) if is_load && bytes == 2 => beside(TAG_PROTOCOL),
        (ABSOLUTE, k) if is_load && bytes == 2 && k == TAG_AT + 2 => beside(TAG_CONTROL),
        (ABSOLUTE | INDEXED, _) if is_load => moved,
        _ => instruction,
    }
}

fn beside(k: u32) -> Instruction {
    Instruction { code: LOAD_WORD, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn i(code: u16, k: u32) -> Instruction {
        Instruction { code, jt: 0, jf: 0, k }
    }

    #[test]
    fn offsets_behind_the_tag_move_and_the_tag_is_looked_up_beside_the_frame() {
        let cases = [
            (i(0x20, 8), i(0x20, 8)),
            (i(0x28, 12), i(0x20, TAG_PROTOCOL)),
            (i(0x28, 14), i(0x20, TAG_CONTROL)),
            (i(0x28, 16), i(0x28, 12)),
            (i(0x30, 27), i(0x30, 23)),
            (i(0x48, 18), i(0x48, 14)),
            (i(0xb1, 18), i(0xb1, 14)),
            (i(0x02, 3), i(0x02, 3)),
            (i(0x60, 14), i(0x60, 14)),
            (i(0x54, 14), i(0x54, 14)),
            (i(0x00, 14), i(0x00, 14)),
            (i(0x06, 0), i(0x06, 0)),
        ];
        for (given, expected) in cases {
            assert_eq!(behind_tag(given), expected, "{given:?}");
        }
    }

    #[test]
    fn what_cannot_be_asked_without_the_tag_takes_the_frame() {
        // Across either end of the tag, within it, at a place behind something shorter than it, and the length.
        let cases =
            [(0x20, 10), (0x20, 12), (0x30, 12), (0x30, 14), (0x28, 13), (0x28, 15), (0xb1, 14)];
        for (code, k) in cases.into_iter().chain([(0x48, 14), (0x80, 0), (0x81, 0)]) {
            assert_eq!(behind_tag(i(code, k)), TAKE, "{code:#x} {k}");
        }
    }

    #[test]
    fn a_program_is_there_twice_while_there_is_room() {
        let long = |len: usize| {
            let mut program = vec![i(0x30, 50); len];
            program.push(i(0x06, 65535));
            program
        };
        let room = (INSTRUCTIONS_MAX - 3) / 2 - 1;
        let twice = of_ethernet(&long(room)).expect("it fits");
        assert_eq!(twice.len(), 3 + 2 * (room + 1));
        assert_eq!(twice[2].k as usize, room + 1);
        assert_eq!(twice[3 + room + 1], i(0x30, 46));
        let once = of_ethernet(&long(room + 1)).expect("it fits");
        assert_eq!(once.len(), 3 + room + 2 + 1);
        assert_eq!(once.last(), Some(&TAKE));
        assert!(of_ethernet(&long(INSTRUCTIONS_MAX)).is_none());
        assert!(of_others(&long(INSTRUCTIONS_MAX)).is_none());
        let most = of_others(&long(INSTRUCTIONS_MAX - 1)).expect("it fits");
        assert_eq!(most.last(), Some(&TAKE));
    }
}
