//! Writes the workloads of `bench/workload.rs` as capture files, and beside each what is known of it.
//!
//! ```text
//! cargo run --release --example generate -- --dir bench/data
//! ```
//!
//! For each workload: `NAME.pcap`, `NAME.json` (totals, SHA-256 of the capture) and
//! `NAME.flows.tsv` (every flow; `bench/check.py` compares a sensor's records with it).

#[allow(dead_code, reason = "shared with the benches, which use other parts of it")]
mod workload;

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use workload::{Truth, Workload};

const HELP: &str = "\
Usage: generate [A] [B] [C] [--dir DIR] [--scale X] [--nanoseconds]

  A B C          which workloads; default all
  --dir DIR      where to write; default bench/data
  --scale X      0 < X <= 1: so much of each workload, in flows and frames; default 1
  --nanoseconds  capture files with nanoseconds; default microseconds";

fn main() -> Result<(), Box<dyn Error>> {
    let mut workloads = Vec::new();
    let mut dir = PathBuf::from("bench/data");
    let mut scale = 1.0;
    let mut nanoseconds = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value\n\n{HELP}"));
        match arg.as_str() {
            "--dir" => dir = value()?.into(),
            "--scale" => scale = value()?.parse()?,
            "--nanoseconds" => nanoseconds = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            name => match Workload::parse(name) {
                Some(workload) => workloads.push(workload),
                None => {
                    return Err(format!("{name} is neither workload nor option\n\n{HELP}").into());
                }
            },
        }
    }
    if !(scale > 0.0 && scale <= 1.0) {
        return Err(format!("--scale {scale}: choose a number above 0, at most 1").into());
    }
    if workloads.is_empty() {
        workloads = Workload::ALL.to_vec();
    }
    std::fs::create_dir_all(&dir)?;
    for workload in workloads {
        write(workload, scale, nanoseconds, &dir)?;
    }
    Ok(())
}

fn write(workload: Workload, scale: f64, nanoseconds: bool, dir: &Path) -> std::io::Result<()> {
    let path = |suffix: &str| dir.join(format!("{}.{suffix}", workload.name()));
    let mut capture = Capture::create(&path("pcap"), nanoseconds)?;
    let truth = workload.generate(scale, &mut |ts_ns, frame| capture.frame(ts_ns, frame));
    let (frames, sha256) = capture.finish()?;
    write_flows(&truth, &path("flows.tsv"))?;
    let [initiator, responder] = truth.totals();
    let json = format!(
        "{{\n  \"workload\": \"{}\",\n  \"scale\": {scale},\n  \"sha256\": \"{sha256}\",\n  \
         \"flows\": {},\n  \"packets\": {frames},\n  \"bytes\": {},\n  \
         \"packets_initiator\": {},\n  \"packets_responder\": {},\n  \
         \"bytes_initiator\": {},\n  \"bytes_responder\": {},\n  \
         \"retransmitted\": {},\n  \"out_of_order\": {},\n  \"stream_bytes\": {}\n}}\n",
        workload.name(),
        truth.flows.len(),
        initiator.bytes + responder.bytes,
        initiator.packets,
        responder.packets,
        initiator.bytes,
        responder.bytes,
        initiator.retransmitted + responder.retransmitted,
        initiator.out_of_order + responder.out_of_order,
        initiator.stream_bytes + responder.stream_bytes,
    );
    assert_eq!(frames, initiator.packets + responder.packets);
    std::fs::write(path("json"), &json)?;
    print!("{json}");
    Ok(())
}

fn write_flows(truth: &Truth, path: &Path) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    writeln!(
        out,
        "src_ip\tsrc_port\tdst_ip\tdst_port\tproto\tpackets_initiator\tpackets_responder\t\
         bytes_initiator\tbytes_responder\tretransmitted\tout_of_order\tstream_bytes"
    )?;
    for flow in &truth.flows {
        let (ends, [initiator, responder]) = (&flow.ends, &flow.sides);
        writeln!(
            out,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            ends.src,
            ends.src_port,
            ends.dst,
            ends.dst_port,
            flow.proto,
            initiator.packets,
            responder.packets,
            initiator.bytes,
            responder.bytes,
            initiator.retransmitted + responder.retransmitted,
            initiator.out_of_order + responder.out_of_order,
            initiator.stream_bytes + responder.stream_bytes,
        )?;
    }
    out.flush()
}

/// A pcap file in the making: little endian, Ethernet.
struct Capture {
    out: File,
    sha256: Sha256,
    buffer: Vec<u8>,
    unit_ns: u64,
    frames: u64,
    result: std::io::Result<()>,
}

/// What is written at a time, a whole number of pages from a page's start: the page cache then holds it in large pieces, as it
/// does what it reads ahead from a disk. Written otherwise, a replay of workload C takes a tenth longer.
const BUFFER_BYTES: usize = 4 << 20;

impl Capture {
    fn create(path: &Path, nanoseconds: bool) -> std::io::Result<Self> {
        let (magic, unit_ns) = if nanoseconds { (0xa1b2_3c4d, 1) } else { (0xa1b2_c3d4, 1000) };
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + 2048);
        // Magic, version 2.4, zone, accuracy, snapshot length, link type.
        for field in [magic, 0x0004_0002, 0, 0, 262_144, 1_u32] {
            buffer.extend_from_slice(&field.to_le_bytes());
        }
        let out = File::create(path)?;
        Ok(Self { out, sha256: Sha256::new(), buffer, unit_ns, frames: 0, result: Ok(()) })
    }

    fn frame(&mut self, ts_ns: u64, frame: &[u8]) {
        const SECOND_NS: u64 = 1_000_000_000;
        let fraction = ts_ns % SECOND_NS / self.unit_ns;
        let len = frame.len() as u32;
        for field in [(ts_ns / SECOND_NS) as u32, fraction as u32, len, len] {
            self.buffer.extend_from_slice(&field.to_le_bytes());
        }
        self.buffer.extend_from_slice(frame);
        self.frames += 1;
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out(BUFFER_BYTES);
        }
    }

    /// The first error stays and is told at the end.
    fn write_out(&mut self, bytes: usize) {
        let bytes = self.buffer.drain(..bytes);
        self.sha256.update(bytes.as_slice());
        if self.result.is_ok() {
            self.result = self.out.write_all(bytes.as_slice());
        }
    }

    /// How many frames, and the hash of the file.
    fn finish(mut self) -> std::io::Result<(u64, String)> {
        self.write_out(self.buffer.len());
        self.result?;
        let hex = self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((self.frames, hex))
    }
}
