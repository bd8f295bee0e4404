//! What this machine's memory can do, so that a cost can be held against a limit that was measured on the same day.
//!
//! Prints `what,bytes,value,unit`: the time of a read that waits for the one before it (chase), of one of sixteen that do
//! not wait for each other (overlapped), and bytes a second read, and copied, in order. One core; pin it.

use std::hint::black_box;
use std::time::Instant;

#[allow(dead_code, reason = "shared with the generator, which uses other parts of it")]
#[path = "workload/rng.rs"]
mod rng;

/// A cache line of 8-byte words; the first names the line that comes next.
type Line = [u64; 8];

const READS: usize = 4_000_000;
const CHAINS: usize = 16;
const RUNS: usize = 5;
const STREAM_BYTES: usize = 1 << 30;

fn main() {
    for (name, bytes) in [
        ("first cache", 32 << 10),
        ("second cache", 1 << 20),
        ("third cache", 32 << 20),
        ("memory", 1 << 30),
    ] {
        let lines = ring(bytes / size_of::<Line>());
        println!("{name}: chase,{bytes},{:.2},ns", median(|| chase::<1>(&lines)));
        println!("{name}: overlapped,{bytes},{:.2},ns", median(|| chase::<CHAINS>(&lines)));
    }
    let source = vec![1_u64; STREAM_BYTES / 8];
    let mut target = vec![2_u64; STREAM_BYTES / 8];
    let per_second = |ns_a_byte: f64| 1.0 / ns_a_byte;
    let read = median(|| {
        let begin = Instant::now();
        black_box(black_box(&source).iter().fold(0_u64, |sum, &word| sum.wrapping_add(word)));
        begin.elapsed().as_nanos() as f64 / STREAM_BYTES as f64
    });
    println!("read in order,{STREAM_BYTES},{:.2},GB/s", per_second(read));
    let copied = median(|| {
        let begin = Instant::now();
        target.copy_from_slice(black_box(&source));
        black_box(&target);
        begin.elapsed().as_nanos() as f64 / STREAM_BYTES as f64
    });
    println!("copied,{STREAM_BYTES},{:.2},GB/s", per_second(copied));
}

/// Lines in one ring, in random order (Sattolo), so that no prefetcher knows the next one.
fn ring(count: usize) -> Vec<Line> {
    let mut rng = rng::Rng::new(1);
    let mut next: Vec<u32> = (0..count as u32).collect();
    for index in (1..count).rev() {
        next.swap(index, rng.below(index as u32) as usize);
    }
    next.into_iter().map(|next| [u64::from(next), 0, 0, 0, 0, 0, 0, 0]).collect()
}

/// Nanoseconds a read, with so many chains at once.
fn chase<const N: usize>(lines: &[Line]) -> f64 {
    let mut at: [usize; N] = std::array::from_fn(|chain| chain * lines.len() / N);
    let begin = Instant::now();
    for _ in 0..READS / N {
        for at in &mut at {
            *at = lines[*at][0] as usize;
        }
    }
    black_box(at);
    begin.elapsed().as_nanos() as f64 / READS as f64
}

fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut values: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    values.sort_by(f64::total_cmp);
    values[RUNS / 2]
}
