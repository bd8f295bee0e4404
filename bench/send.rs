//! Sends load out of an interface, and says on one line of JSON how much exactly.
//!
//! ```text
//! cargo run --release --features sensor,af-xdp --example send -- --interface fsgen0 --rate 1000000 --size 64
//! ```
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod load;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use load::generator::{Generator, Plan, Size};
    use std::time::Duration;

    const HELP: &str = "\
Usage: send --interface NAME [OPTIONS]

  --interface NAME  where to send: a veth, or a port whose driver takes frames from XDP
  --rate N|max      frames a second, of all cores together; default max
  --seconds X       for how long; default 10
  --size N|imix     bytes of a frame with its FCS, as RFC 2544 counts: what is sent is 4 shorter; imix is
                    64, 594 and 1518 as 7:4:1; default 64
  --flows N         UDP flows, in turns; default 1000
  --cores LIST      one thread on each; default 0";
    /// Of a frame on the wire; nobody here sees it.
    const FCS_BYTES: u32 = 4;

    let mut plan = Plan {
        interface: String::new(),
        size: Size::Bytes(60),
        flows: 1000,
        rate: None,
        time: Duration::from_secs(10),
        cores: vec![0],
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value\n\n{HELP}"));
        match arg.as_str() {
            "--interface" => plan.interface = value()?,
            "--rate" => {
                plan.rate = match value()?.as_str() {
                    "max" => None,
                    rate => {
                        Some(rate.parse().map_err(|_| format!("--rate {rate}: a number, or max"))?)
                    }
                }
            }
            "--seconds" => plan.time = Duration::try_from_secs_f64(value()?.parse()?)?,
            "--size" => {
                plan.size = match value()?.as_str() {
                    "imix" => Size::Imix,
                    size => Size::Bytes(size.parse::<u32>()?.saturating_sub(FCS_BYTES)),
                }
            }
            "--flows" => plan.flows = value()?.parse()?,
            "--cores" => {
                let cores: Result<_, _> = value()?.split(',').map(str::parse).collect();
                plan.cores = cores?;
            }
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            _ => return Err(format!("unknown option {arg}\n\n{HELP}").into()),
        }
    }
    if plan.interface.is_empty() {
        return Err(format!("--interface is missing\n\n{HELP}").into());
    }
    let sent = Generator::open(plan)?.run()?;
    let seconds = sent.nanos as f64 / 1e9;
    println!(
        "{{\"attempted\":{},\"taken\":{},\"refused\":{},\"bytes\":{},\"seconds\":{seconds:.6},\"rate\":{:.0}}}",
        sent.attempted,
        sent.taken,
        sent.refused,
        sent.bytes,
        sent.attempted as f64 / seconds.max(1e-9),
    );
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("send: XDP is Linux's");
    std::process::exit(2);
}
