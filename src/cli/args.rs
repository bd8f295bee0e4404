//! The command line as clap reads it. Validation of what depends on several options is in
//! [`options`](super::options).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::exit;
use super::values::{self, IdleTimeout};
use crate::capture::fanout::FanoutMode;
use crate::flow::KeyHash;
use crate::sensor::backends::Backend;
use crate::sensor::cores::CoreList;
use crate::sensor::options::{Output, Speed};
use crate::sensor::privileges::User;

const ENVIRONMENT: &str = "\
Environment:
    RUST_LOG  which messages go to standard error (default: info). With
              flowscope.flow=info,flowscope.anomaly=warn every flow and anomaly is one.
    NO_COLOR  messages without colours";

fn after_help(examples: &str) -> String {
    format!("{examples}\n\n{ENVIRONMENT}\n\n{}", exit::HELP)
}

const EXAMPLES: &str = "\
Examples:
    flowscope replay capture.pcapng --output jsonl:flows.jsonl
        one JSON object a flow; a summary and the ledger on standard error

    tcpdump -i eth0 -w - | flowscope replay - --output jsonl:- | jq .dst_port
        from one pipe into another

    flowscope replay day/*.pcap.zst --filter 'tcp port 443' --workers 4 --summary day.json
        several files in time order, on four cores, only what the filter lets through

    flowscope replay capture.pcap --speed realtime --metrics 127.0.0.1:9090 --hold
        as it was captured, with Prometheus metrics, until Ctrl-C";

const LIVE_EXAMPLES: &str = "\
Examples:
    flowscope live --interface eth2 --output jsonl:flows.jsonl --metrics 127.0.0.1:9090
        a mirror port, with records and Prometheus metrics

    flowscope live -i tap0 -i tap1 --output jsonl:/var/lib/flowscope/flows.jsonl
        a TAP: one port for each direction

    flowscope live -i eth2 --backend af-packet --workers 4 --filter 'not port 22'
        four workers, by a named backend, without what is filtered out

    flowscope live -i eth2 --backend af-xdp --shunt-above 10MB
        flows of more than that are counted in the kernel

    flowscope live -i eth2 --steer --workers 3 --cores 2-5
        a port with one queue: core 2 reads, cores 3 to 5 track";

/// Watches network traffic and turns it into flow records.
#[derive(Debug, Parser)]
#[command(
    name = "flowscope",
    version,
    propagate_version = true,
    long_about = "\
Turns frames into flow records: who talked to whom, when, how much, and how it ended. It never touches
the traffic, and it accounts for every frame: what it was given is what it tracked, filtered out or could
not match, and every record it made was written or counted as dropped.",
    after_long_help = after_help(EXAMPLES),
    after_help = "Try 'flowscope replay --help' or 'flowscope live --help' for all options, examples and exit codes."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read capture files and write the flows in them.
    Replay(Box<ReplayArgs>),
    /// Listen on SPAN or TAP ports and write the flows on them.
    Live(Box<LiveArgs>),
    /// Look at ports and at the machine, and say what stands against capturing.
    Doctor(DoctorArgs),
    /// Put back what a run with --tune could not, because it was killed.
    Restore(RestoreArgs),
}

/// Messages as lines for people or as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line a message.
    Text,
    /// One JSON object a message.
    Json,
}

/// How flows are found in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlowHash {
    /// foldhash.
    Fast,
    /// SipHash-1-3.
    Sip,
}

impl From<FlowHash> for KeyHash {
    fn from(hash: FlowHash) -> Self {
        match hash {
            FlowHash::Fast => Self::Fast,
            FlowHash::Sip => Self::Sip,
        }
    }
}

/// What every run takes: where records go, what a flow is, how it is watched.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Write records here, as KIND:WHERE; may be given several times.
    ///
    /// jsonl:PATH writes one JSON object a record and line; jsonl:- is standard output. Without
    /// an output, flows are only counted.
    #[arg(short, long = "output", value_name = "KIND:WHERE", value_parser = values::output, help_heading = "Output")]
    pub outputs: Vec<Output>,

    /// Write the summary and the ledger to this file as JSON.
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub summary: Option<PathBuf>,

    /// Leave the Community ID out of the records.
    ///
    /// It costs a SHA-1 for each record.
    #[arg(long, help_heading = "Output")]
    pub no_community_id: bool,

    /// Only frames that this expression matches, in tcpdump's syntax (see pcap-filter(7)).
    ///
    /// The others are counted as filtered. An expression that does not compile, or is so long that
    /// compiling it takes seconds, is refused before anything is read or opened. live has the kernel filter
    /// where it can (af-packet and pcap, on Linux): what it refuses is never offered, and so not counted.
    #[arg(long, value_name = "EXPRESSION", help_heading = "Frames")]
    pub filter: Option<String>,

    /// How many flows are followed at once, all workers together.
    ///
    /// The memory is taken at start. When the table is full, the flow that is worth least
    /// is evicted, with a record.
    #[arg(long, value_name = "N", default_value_t = 100_000, help_heading = "Flows")]
    pub max_flows: usize,

    /// End flows that were silent for TIME; several with commas.
    ///
    /// NAME is tcp-embryonic (default 10s), tcp-established (300s), tcp-half-closed (120s),
    /// tcp-closed (5s), udp (60s) or other (30s). TIME is in s unless it ends with ms, m or h.
    #[arg(long, value_name = "NAME=TIME", value_delimiter = ',', value_parser = values::idle_timeout, help_heading = "Flows")]
    pub idle_timeout: Vec<IdleTimeout>,

    /// Write an interim record of a flow that goes on for TIME; off for none.
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = values::duration_or_off, help_heading = "Flows")]
    // Spelled in full: clap would take `Option` for an optional argument.
    pub active_timeout: std::option::Option<Duration>,

    /// How flows are found in the table: fast, or sip against who chooses addresses to make it slow.
    ///
    /// Both hash by a key that is this process's own. fast is foldhash, some nanoseconds a packet; sip is SipHash-1-3, which is made
    /// to keep its key from who can choose every packet and watch what it costs, for some nanoseconds more. Either way a
    /// search looks at no more than 512 places.
    #[arg(long, value_name = "HASH", default_value = "fast", help_heading = "Flows")]
    pub flow_hash: FlowHash,

    /// A VLAN that differs is a different flow.
    #[arg(long, help_heading = "Flows")]
    pub key_vlan: bool,

    /// An interface of the capture that differs is a different flow.
    #[arg(long, help_heading = "Flows")]
    pub key_interface: bool,

    /// Pin workers to these cores, in this order: numbers and ranges, such as 2-5,8.
    ///
    /// Without it, every core that this process may use, those on the NIC's NUMA node first.
    #[arg(long, value_name = "LIST", value_parser = values::cores, help_heading = "Operation")]
    pub cores: Option<CoreList>,

    /// Serve /metrics (Prometheus), /healthz and /readyz at this address; port 0 takes any.
    ///
    /// The address that was bound is printed to standard error.
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Operation")]
    pub metrics: Option<SocketAddr>,

    /// How messages are written to standard error.
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Operation")]
    pub log_format: LogFormat,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(
    long_about = "\
Reads capture files (pcap or pcapng, plain, gzip or zstd) in the order of their timestamps, tracks the
flows in them and writes one record for each flow that ends, and one for each that has gone on for the
active timeout. At the end of the capture every live flow ends with a record.

A broken file is read as far as it goes: the records of what could be read are written, the message names the
file, the offset and the reason, and the exit code is 3.",
    after_long_help = after_help(EXAMPLES)
)]
pub struct ReplayArgs {
    /// Capture files; - is standard input.
    ///
    /// Several files are merged in time order. The format is found out from the contents, not
    /// from the name.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Shared with the other commands.
    #[command(flatten)]
    pub common: CommonArgs,

    /// How fast: max, realtime, or a factor such as 10x.
    #[arg(long, value_name = "SPEED", default_value = "max", value_parser = values::speed, help_heading = "Replay")]
    pub speed: Speed,

    /// How many threads track flows, 1 to 128.
    ///
    /// 1 reads and tracks on one thread. With more, each flow has one of that many pinned workers, of which each reads the files for itself
    /// and passes over what is not its own; from a pipe, a compressed file, or at a --speed, one more thread reads for all. The records are
    /// the same set, in another order.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128), help_heading = "Replay")]
    pub workers: u16,

    /// Put the byte stream of every TCP connection together, and count what is missing.
    ///
    /// The bytes are thrown away; gaps, segments dropped as out of order and bytes dropped by a full buffer
    /// are counted in the summary and in the metrics. Takes up to 256 MiB. With several workers only where each reads for itself.
    #[arg(long, help_heading = "Flows")]
    pub reassemble: bool,

    /// Keep serving after the end, until SIGINT or SIGTERM.
    #[arg(long, requires = "metrics", help_heading = "Operation")]
    pub hold: bool,

    /// No progress bar on a terminal.
    #[arg(long, help_heading = "Operation")]
    pub no_progress: bool,
}

/// Arguments of `live`.
#[derive(Debug, Args)]
#[command(
    long_about = "\
Captures on SPAN or TAP ports, tracks the flows and writes one record for each flow that ends, and one for each that has
gone on for the active timeout, until SIGINT or SIGTERM: then every live flow ends with a record. One pinned worker has one
queue of every interface; with --steer one pinned thread reads all of them for the workers. Every frame that a queue had is
accounted for: tracked, filtered out, unmatched, or lost under a named reason. A port that goes away is waited for. SIGHUP opens
the files of --output anew.

The ports are only listened to. AF_XDP takes frames off a port before the host's own network stack sees them, so it refuses a
port that the host uses, unless --take-traffic says that this is wanted. auto takes AF_XDP where it will do, else AF_PACKET, else
libpcap.",
    after_long_help = after_help(LIVE_EXAMPLES)
)]
pub struct LiveArgs {
    /// A port to listen on; for a TAP, one for each direction.
    #[arg(
        short,
        long = "interface",
        required = true,
        value_name = "NAME",
        help_heading = "Frames"
    )]
    pub interfaces: Vec<String>,

    /// How frames are captured.
    #[arg(long, value_name = "BACKEND", default_value = "auto", help_heading = "Frames")]
    pub backend: BackendName,

    /// How many pinned threads track: as many as the port has queues, or a number up to 128.
    ///
    /// Each reads its queues itself, or with --steer gets what one thread reads.
    #[arg(long, value_name = "auto|N", default_value = "auto", value_parser = values::workers, help_heading = "Frames")]
    pub workers: Workers,

    /// One thread reads all queues of all ports and steers flows to the workers, as replay does.
    ///
    /// For a port with one queue, or whose queues do not have both directions of a flow. Every fragment and every
    /// ICMP error finds its flow. Takes --workers N, and one core more, the first of --cores. libpcap does so whenever there
    /// are several workers.
    #[arg(long, help_heading = "Frames")]
    pub steer: bool,

    /// How the kernel spreads frames over the workers, each with a socket of its own: hash, ebpf, qm or cpu. Only with --backend
    /// af-packet.
    ///
    /// hash is by flow as the kernel sees it: what is in a tunnel (GRE, IP in IP) goes by what it carries, so that
    /// the tunnel, which is one flow for us, may have a record of each worker; all of MPLS goes to one worker. ebpf is by flow as we
    /// see it, by a program of ours in the kernel, which takes CAP_BPF and CAP_PERFMON. qm is by the queue that a frame came on, cpu
    /// by the processor that took it.
    #[arg(long, value_name = "MODE", conflicts_with = "steer", value_parser = values::fanout, help_heading = "Frames")]
    pub fanout: Option<FanoutMode>,

    /// Go on as this user, once outputs are open.
    ///
    /// Of the rights it was started with, those that it takes to open a port are kept in any case and no others:
    /// CAP_NET_RAW, and for AF_XDP CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON and CAP_IPC_LOCK; CAP_BPF and
    /// CAP_PERFMON for --fanout ebpf; and CAP_NET_ADMIN to put back what --tune or --hardware-times set.
    #[arg(long, value_name = "NAME", value_parser = User::find, help_heading = "Operation")]
    pub user: Option<User>,

    /// Let AF_XDP take frames that the host's own network stack then does not get.
    #[arg(long, help_heading = "Frames")]
    pub take_traffic: bool,

    /// Poll the driver for so long before sleeping, instead of waiting for its interrupts: 1 to 10000. Only with
    /// --backend af-xdp.
    ///
    /// The worker then does the driver's work on its own core (Linux 5.11). Interrupts are put off only where the port's
    /// napi_defer_hard_irqs and gro_flush_timeout say so, which are left as they are.
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Frames")]
    pub busy_poll: Option<u32>,

    /// Count the packets of a flow that has SIZE bytes in the kernel, and read no more of them. Only with --backend af-xdp.
    ///
    /// SIZE is in bytes unless it ends with kB, MB or GB. For what a link's bulk transfers cost: their frames are counted for
    /// their flow by the program that else hands them on, and dropped there. FIN, SYN, RST, fragments and all that is not plain
    /// TCP or UDP still come. Records are exact to the packet and byte; retransmissions and order are not looked at
    /// meanwhile. Up to 1024 flows at once on a port. Not with --filter or --steer.
    #[arg(long, value_name = "SIZE", value_parser = values::bytes, help_heading = "Flows")]
    pub shunt_above: Option<u64>,

    /// Frames have the NIC's own time. Only with --backend af-packet, and a NIC that can stamp every frame.
    ///
    /// The NIC is told to, and put back at the end; that takes CAP_NET_ADMIN, unless it does so already. Its clock is the host's
    /// only where something keeps it so: phc2sys, say.
    #[arg(long, help_heading = "Frames")]
    pub hardware_times: bool,

    /// Set the ports for capturing, and put them back at the end.
    ///
    /// GRO and LRO off; the NIC's ring as long as it can be; pause frames off; for AF_XDP also VLAN offload off,
    /// a symmetric RSS key and an even table. Each change is logged.
    #[arg(long, help_heading = "Ports")]
    pub tune: bool,

    /// Where --tune remembers how ports were.
    #[command(flatten)]
    pub state: StateArgs,

    /// Shared with the other commands.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Where it is remembered how ports were.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Where --tune remembers how ports were, for the case that it is killed.
    #[arg(long, value_name = "DIR", default_value = "/run/flowscope", help_heading = "Ports")]
    pub state_dir: PathBuf,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
    flowscope doctor
        every interface that is no loopback

    flowscope doctor -i eth2 --json | jq '.interfaces[].findings[] | select(.severity == \"warning\")'
        what is wrong with one port, for a program";

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(
    long_about = "\
Looks at ports and at the machine, and says what stands against capturing: link, queues, RSS key and table, ring, GRO and LRO, VLAN
offload, pause frames, who else uses the port, NUMA node; rights, limits, clock. Each finding says why it matters and what to
do about it. Nothing is changed.",
    after_long_help = after_help(DOCTOR_EXAMPLES)
)]
pub struct DoctorArgs {
    /// A port to look at; may be given several times. Without it, every interface that is no loopback.
    #[arg(short, long = "interface", value_name = "NAME")]
    pub interfaces: Vec<String>,

    /// The backend that it is to be captured by.
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    pub backend: BackendName,

    /// For programs and not for people.
    #[arg(long)]
    pub json: bool,

    /// Where runs remember how ports were.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(long_about = "\
Puts ports back as they were before a run with --tune that was killed by SIGKILL or aborted, and so
could not do it itself. Ports of runs that go on are left alone. The next run with --tune does the same for its own ports.")]
pub struct RestoreArgs {
    /// Where runs remember how ports were.
    #[command(flatten)]
    pub state: StateArgs,
}

/// A number of workers, or as many as there are queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers(pub Option<usize>);

/// Backends by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    /// The best that the ports allow.
    Auto,
    /// AF_XDP with our own program: zero-copy, or native with a copy.
    AfXdp,
    /// AF_PACKET with a ring.
    AfPacket,
    /// libpcap: wherever libpcap is.
    Pcap,
}

impl From<BackendName> for Backend {
    fn from(name: BackendName) -> Self {
        match name {
            BackendName::Auto => Self::Auto,
            BackendName::AfXdp => Self::AfXdp,
            BackendName::AfPacket => Self::AfPacket,
            BackendName::Pcap => Self::Pcap,
        }
    }
}
