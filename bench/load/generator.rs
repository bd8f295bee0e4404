//! Frames out of an interface by XDP: `bpf/generate.bpf.c`, run by the kernel on frames of ours (`BPF_PROG_RUN`, live
//! frames, Linux 5.18).
//!
//! Contract: [`Sent::taken`] is what the driver took, to the frame; with a veth pair that is what lies in the other end's ring
//! or was received. UDP, one direction, flows in turns, each of them as often as the others or once more. A rate
//! is kept by leaving runs of the program out, so that a processor of the generator is always busy; it holds from the first frame
//! to the last, whatever came between, as long as the processor can send faster than that.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use aya::programs::{RawTracePoint, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};

use super::pin::pin;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/generate.bpf.o");

/// The longest frame that a page has room for beside what the kernel puts there.
pub const FRAME_BYTES_MAX: u32 = 3072;
/// Ethernet, IPv4 and UDP with nothing in it.
pub const FRAME_BYTES_MIN: u32 = 42;
/// Addresses below 10.0.0.0/8.
pub const FLOWS_MAX: u32 = 1 << 24;

const FRACTION: u64 = 1 << 16;
/// What could not be sent in time, because the processor was away or the kernel made its pool of pages anew, is made up for
/// at a rate that is higher by one in this many.
const HASTE: u64 = 16;
/// How often it is looked whether all is sent.
const LOOK: Duration = Duration::from_millis(2);
/// The kernel runs the program on so many frames before it lets the rest of the processor's work be done.
const BATCH: u32 = 64;
/// Runs of the program in one call: about a second. The clock is looked at after each, so that a thread that is never
/// interrupted ends all the same: with the most that a call takes, one of real-time priority sent for minutes, because whoever
/// was to stop it never had a processor. Between calls the kernel makes its pool of pages anew and nothing is sent: of all that
/// a processor can send in calls of a tenth of a second 83 % came, of that in calls of a second 99 %.
const RUNS: u32 = 1 << 24;

/// Which lengths the frames have, without FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Bytes(u32),
    /// 60, 590 and 1 514 bytes as 7:4:1.
    Imix,
}

impl Size {
    fn longest(self) -> u32 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Imix => 1514,
        }
    }
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Plan {
    pub interface: String,
    pub size: Size,
    pub flows: u32,
    /// Frames a second of all processors together; `None` for as fast as they can.
    pub rate: Option<u64>,
    pub time: Duration,
    /// One thread on each. A veth pair hands over to the queue that has the processor's number.
    pub cores: Vec<u32>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames that the program sent off.
    pub attempted: u64,
    /// Their bytes, without FCS.
    pub bytes: u64,
    /// Those that the driver took.
    pub taken: u64,
    /// Those that it refused, because its ring was full.
    pub refused: u64,
    /// From the first to the last.
    pub nanos: u64,
}

/// Fields of `struct state` in the program, by their place.
type State = [u64; 11];
const RANK: usize = 0;
const FRAMES_MAX: usize = 1;
const ATTEMPTED: usize = 2;
const BYTES: usize = 3;
const FIRST_NS: usize = 4;
const LAST_NS: usize = 5;
const TAKEN: usize = 9;
const REFUSED: usize = 10;

/// A loaded program, ready to run.
pub struct Generator {
    plan: Plan,
    states: PerCpuArray<MapData, State>,
    /// Owns the programs, and what is attached.
    ebpf: Ebpf,
}

impl Generator {
    /// Loads it for an interface of this thread's network namespace.
    ///
    /// # Errors
    /// What of the plan cannot be, or what the kernel said.
    pub fn open(plan: Plan) -> io::Result<Self> {
        let refused = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let processors = plan.cores.len() as u32;
        let bytes = plan.size.longest();
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&bytes) {
            return refused(format!(
                "frames of {bytes} bytes: choose {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX}"
            ));
        }
        if !(1..=FLOWS_MAX).contains(&plan.flows) {
            return refused(format!("{} flows: choose 1 to {FLOWS_MAX}", plan.flows));
        }
        if processors == 0 || !plan.flows.is_multiple_of(processors) {
            let flows = plan.flows;
            return refused(format!(
                "{flows} flows on {processors} cores: each is to have as many as the others"
            ));
        }
        if plan.rate == Some(0) {
            return refused("a rate of 0: choose at least 1, or max".to_owned());
        }
        let index = interface_index(&plan.interface)?;
        // Of each processor.
        let interval = plan.rate.map_or(0, |rate| {
            (1_000_000_000 * u128::from(FRACTION) * u128::from(processors) / u128::from(rate))
                as u64
        });
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global("interface", &index, true)
            .override_global("flows", &plan.flows, true)
            .override_global("processors", &processors, true)
            .override_global("interval", &interval, true)
            .override_global("interval_min", &(interval - interval / (HASTE + 1)), true)
            .override_global("imix", &u8::from(plan.size == Size::Imix), true)
            .load(OBJECT)
            .map_err(io::Error::other)?;
        let states = ebpf.take_map("states").ok_or_else(|| missing("states"))?;
        let mut states: PerCpuArray<_, State> = states.try_into().map_err(io::Error::other)?;
        states.set(0, starts(&plan)?, 0).map_err(io::Error::other)?;
        xdp(&mut ebpf)?.load().map_err(io::Error::other)?;
        let counter: &mut RawTracePoint = ebpf
            .program_mut("handed_over")
            .ok_or_else(|| missing("handed_over"))?
            .try_into()
            .map_err(io::Error::other)?;
        counter.load().map_err(io::Error::other)?;
        counter.attach("xdp_devmap_xmit").map_err(io::Error::other)?;
        Ok(Self { plan, states, ebpf })
    }

    /// Sends it all, and returns when the last frame is with the driver. A rate that the processors cannot keep up with ends
    /// after half as much time again; the number of frames is then smaller than planned.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn run(&mut self) -> io::Result<Sent> {
        let Plan { rate, time, .. } = self.plan;
        let wanted = rate.map_or(u64::MAX, |rate| frames_of(rate, time));
        let deadline = Instant::now() + time.mul_f64(if rate.is_some() { 1.5 } else { 1.0 });
        wake_by_signal()?;
        let frame = frame(self.plan.size.longest());
        let program = &*xdp(&mut self.ebpf)?;
        let (states, cores) = (&self.states, &self.plan.cores);
        let stop = AtomicBool::new(false);
        let ids: Vec<_> = cores.iter().map(|_| AtomicI32::new(0)).collect();
        let is_over = || -> io::Result<bool> {
            let told = stop.load(Ordering::Relaxed) || Instant::now() >= deadline;
            Ok(told || sum(states)?.attempted >= wanted)
        };
        std::thread::scope(|scope| {
            let start = |(&core, id)| {
                let (frame, is_over) = (&frame, &is_over);
                scope.spawn(move || send(program, core, frame, is_over, id))
            };
            let threads: Vec<_> = cores.iter().zip(&ids).map(start).collect();
            let mut result = Ok(());
            while threads.iter().all(|thread| !thread.is_finished()) {
                match is_over() {
                    Ok(false) => std::thread::sleep(LOOK),
                    Ok(true) => break,
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
            // At once, and not only at the end of a call.
            stop.store(true, Ordering::Relaxed);
            // A signal that comes before the call that it is to end would be lost: until each has ended.
            while threads.iter().any(|thread| !thread.is_finished()) {
                for id in ids.iter().map(|id| id.load(Ordering::Relaxed)).filter(|&id| id != 0) {
                    // SAFETY: the call takes no pointer; a thread of this process that has ended gets no signal.
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, libc::SIGUSR1) };
                }
                std::thread::sleep(LOOK);
            }
            for thread in threads {
                let sent = thread.join();
                result =
                    result.and(sent.unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
            }
            result
        })?;
        sum(states)
    }
}

/// One thread: the program on live frames, again and again until it is over.
fn send(
    program: &Xdp,
    core: u32,
    frame: &[u8],
    is_over: &(impl Fn() -> io::Result<bool> + Sync),
    id: &AtomicI32,
) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    id.store(unsafe { libc::gettid() }, Ordering::Relaxed);
    pin(core)?;
    while !is_over()? {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: RUNS,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        match program.test_run(options).map_err(system_error) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What a plan comes to at its rate.
fn frames_of(rate: u64, time: Duration) -> u64 {
    (u128::from(rate) * time.as_nanos() / 1_000_000_000) as u64
}

/// The state of each processor before the first frame: those that are not to send have had enough already.
fn starts(plan: &Plan) -> io::Result<PerCpuValues<State>> {
    let mut states = vec![State::default(); nr_cpus().map_err(|(_, error)| error)?];
    let processors = plan.cores.len() as u64;
    let total = plan.rate.map(|rate| frames_of(rate, plan.time));
    for (rank, &core) in (0..).zip(&plan.cores) {
        let Some(state) = states.get_mut(core as usize) else {
            let what = format!("there is no core {core}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        state[RANK] = rank;
        state[FRAMES_MAX] = total
            .map_or(u64::MAX, |total| total / processors + u64::from(rank < total % processors));
    }
    PerCpuValues::try_from(states)
}

fn sum(states: &PerCpuArray<MapData, State>) -> io::Result<Sent> {
    let states = states.get(&0, 0).map_err(io::Error::other)?;
    let of = |field: usize| states.iter().map(|state| state[field]).sum();
    let first = states.iter().map(|state| state[FIRST_NS]).filter(|&ns| ns != 0).min();
    let last = states.iter().map(|state| state[LAST_NS]).max();
    Ok(Sent {
        attempted: of(ATTEMPTED),
        bytes: of(BYTES),
        taken: of(TAKEN),
        refused: of(REFUSED),
        nanos: last.unwrap_or(0).saturating_sub(first.unwrap_or(0)),
    })
}

/// What does not change from frame to frame; the program writes the rest.
fn frame(bytes: u32) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    // Don't fragment, 64 hops, UDP, to 198.18.0.1.
    frame.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 198, 18, 0, 1]);
    frame.extend([0, 0, 0, 9, 0, 0, 0, 0]);
    frame.resize(bytes as usize, 0);
    frame
}

/// A signal that does nothing but end the call that a thread is in.
fn wake_by_signal() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all fields are integers, or pointers that may be null.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the action outlives the call, its handler does nothing, and the old one is not asked for.
    match unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn interface_index(name: &str) -> io::Result<u32> {
    let text = std::ffi::CString::new(name)?;
    // SAFETY: the name ends with a zero byte and outlives the call.
    match unsafe { libc::if_nametoindex(text.as_ptr()) } {
        0 => {
            let error = io::Error::last_os_error();
            Err(io::Error::new(error.kind(), format!("interface {name}: {error}")))
        }
        index => Ok(index),
    }
}

fn xdp(ebpf: &mut Ebpf) -> io::Result<&mut Xdp> {
    let program = ebpf.program_mut("generate").ok_or_else(|| missing("generate"))?;
    program.try_into().map_err(io::Error::other)
}

fn missing(what: &str) -> io::Error {
    io::Error::other(format!("the compiled program has no {what}: run scripts/build-bpf.sh"))
}

/// The system's error under one of the loader's.
fn system_error(error: impl std::error::Error) -> io::Error {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(code) = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code);
        }
        cause = inner.source();
    }
    io::Error::other(error.to_string())
}
