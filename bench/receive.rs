//! The limits beside which flowscope's line rate is told: receivers that count frames and touch nothing.
//!
//! ```text
//! cargo run --release --features sensor,af-xdp --example receive -- --interface fscap0 --backend af-packet
//! ```
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
#[path = "load/pin.rs"]
mod pin;

#[cfg(target_os = "linux")]
mod imp {
    use std::error::Error;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use aya::maps::{MapData, PerCpuArray};
    use aya::programs::{Xdp, XdpMode};
    use flowscope::capture::live::{DropReason, LiveCapture, QueueCounts};
    use flowscope::capture::{af_packet, af_xdp};

    use super::pin::pin;

    const HELP: &str = "\
Usage: receive --interface NAME --backend xdp-drop|af-xdp|af-packet [OPTIONS]

Says 'ready' when frames come, and at SIGTERM or SIGINT, on one line of JSON, what came.

  --interface NAME  where to listen
  --backend NAME    xdp-drop: a program that drops; af-xdp, af-packet: the captures of flowscope, as it opens them
  --cores LIST      one thread on each, the first with the first queue; default 1
  --sockets N       af-packet: how many, in a fanout group; default 1
  --fanout MODE     af-packet: how frames are spread over them: hash (default), ebpf, qm or cpu
  --rx-ring N       af-xdp: entries of each ring
  --frames N        af-xdp: frames of each queue's memory
  --spin-us N       af-xdp: how long a thread looks at its ring before it sleeps";

    static STOP: AtomicBool = AtomicBool::new(false);

    type Result<T> = std::result::Result<T, Box<dyn Error>>;

    struct Options {
        interface: String,
        backend: String,
        cores: Vec<u32>,
        sockets: u32,
        fanout: af_packet::FanoutMode,
        af_xdp: af_xdp::Builder,
    }

    pub fn main() -> Result<()> {
        let Some(options) = options()? else { return Ok(()) };
        stop_by_signals()?;
        let counts = match options.backend.as_str() {
            "xdp-drop" => drop_all(&options.interface)?,
            "af-xdp" => {
                let config = options.af_xdp.build()?;
                count_all(af_xdp::AfXdp::open(&options.interface, 0, &config)?, &options.cores)?
            }
            "af-packet" => {
                let fanout = (options.sockets > 1).then(|| af_packet::Fanout {
                    group: std::process::id() as u16,
                    mode: options.fanout,
                });
                let config = af_packet::Config::builder().fanout(fanout).build()?;
                let (interface, sockets) = (&options.interface, options.sockets as usize);
                let group = af_packet::AfPacket::open_group(interface, 0, &config, sockets)?;
                count_all(group, &options.cores)?
            }
            other => return Err(format!("unknown backend {other}\n\n{HELP}").into()),
        };
        let dropped = DropReason::ALL.iter().zip(counts.dropped).filter(|(_, frames)| *frames != 0);
        let dropped: Vec<_> =
            dropped.map(|(reason, frames)| format!("\"{}\":{frames}", reason.label())).collect();
        println!(
            "{{\"offered\":{},\"delivered\":{},\"dropped\":{{{}}}}}",
            counts.offered,
            counts.delivered,
            dropped.join(",")
        );
        Ok(())
    }

    fn options() -> Result<Option<Options>> {
        let mut options = Options {
            interface: String::new(),
            backend: String::new(),
            cores: vec![1],
            sockets: 1,
            fanout: af_packet::FanoutMode::default(),
            af_xdp: af_xdp::Config::builder(),
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value\n\n{HELP}"));
            match arg.as_str() {
                "--interface" => options.interface = value()?,
                "--backend" => options.backend = value()?,
                "--cores" => {
                    let cores: std::result::Result<_, _> =
                        value()?.split(',').map(str::parse).collect();
                    options.cores = cores?;
                }
                "--sockets" => options.sockets = value()?.parse()?,
                "--fanout" => {
                    let name = value()?;
                    let mut modes = af_packet::FanoutMode::ALL.into_iter();
                    let mode = modes.find(|mode| mode.label() == name);
                    options.fanout = mode.ok_or(format!("unknown fanout {name}\n\n{HELP}"))?;
                }
                "--rx-ring" => options.af_xdp = options.af_xdp.rx_ring(value()?.parse()?),
                "--frames" => options.af_xdp = options.af_xdp.frames(value()?.parse()?),
                "--spin-us" => {
                    let spin = Duration::from_micros(value()?.parse()?);
                    options.af_xdp = options.af_xdp.spin(spin);
                }
                "--help" | "-h" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                _ => return Err(format!("unknown option {arg}\n\n{HELP}").into()),
            }
        }
        for (name, value) in [("--interface", &options.interface), ("--backend", &options.backend)]
        {
            if value.is_empty() {
                return Err(format!("{name} is missing\n\n{HELP}").into());
            }
        }
        Ok(Some(options))
    }

    /// Each capture on a thread and core of its own, until a signal and until its ring is empty.
    fn count_all<C: LiveCapture + Send>(captures: Vec<C>, cores: &[u32]) -> Result<QueueCounts> {
        let mut sum = QueueCounts::default();
        let results: Vec<_> = std::thread::scope(|scope| {
            let cores = cores.iter().cycle();
            let threads: Vec<_> = captures
                .into_iter()
                .zip(cores)
                .map(|(capture, &core)| {
                    scope.spawn(move || count(capture, core).map_err(|error| error.to_string()))
                })
                .collect();
            println!("ready");
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        for result in results {
            let counts = result.map_err(|_| "a thread panicked")??;
            sum.offered += counts.offered;
            sum.delivered += counts.delivered;
            sum.dropped.iter_mut().zip(counts.dropped).for_each(|(sum, frames)| *sum += frames);
        }
        Ok(sum)
    }

    fn count<C: LiveCapture>(mut capture: C, core: u32) -> Result<QueueCounts> {
        pin(core)?;
        let mut frames = 0;
        while !STOP.load(Ordering::Relaxed) {
            capture
                .with_batch(|batch| frames += batch.len() as u64)?
                .ok_or("no more frames come")?;
        }
        capture.stop()?;
        while capture.with_batch(|batch| frames += batch.len() as u64)?.is_some() {}
        let counts = capture.counts()?;
        if counts.delivered != frames {
            return Err(
                format!("{} delivered, {frames} came: please report it", counts.delivered).into()
            );
        }
        Ok(counts)
    }

    /// `bpf/drop.bpf.c`: all is done in the driver, on whichever core that runs.
    fn drop_all(interface: &str) -> Result<QueueCounts> {
        static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/drop.bpf.o");
        let mut ebpf = aya::EbpfLoader::new().btf(None).load(OBJECT)?;
        let frames = ebpf.take_map("frames").ok_or("the object has no map")?;
        let frames: PerCpuArray<MapData, u64> = frames.try_into()?;
        let program: &mut Xdp =
            ebpf.program_mut("drop").ok_or("the object has no program")?.try_into()?;
        program.load()?;
        program.attach(interface, XdpMode::Driver)?;
        println!("ready");
        while !STOP.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let frames = frames.get(&0, 0)?.iter().sum();
        Ok(QueueCounts { offered: frames, delivered: frames, ..QueueCounts::default() })
    }

    fn stop_by_signals() -> Result<()> {
        extern "C" fn stop(_: libc::c_int) {
            STOP.store(true, Ordering::Relaxed);
        }
        // SAFETY: all fields are integers, or pointers that may be null.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = stop as extern "C" fn(libc::c_int) as usize;
        for signal in [libc::SIGTERM, libc::SIGINT] {
            // SAFETY: the action outlives the call, its handler only stores, and the old one is not asked for.
            let done = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
            if done != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    imp::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("receive: its backends are Linux's");
    std::process::exit(2);
}
