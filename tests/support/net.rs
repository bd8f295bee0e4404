//! A network namespace with a veth pair in it, for one thread and what it starts. The kernel takes both away with the last of
//! them, also when the test is killed.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

/// The end that is captured.
pub const PORT: &str = "fscap0";
/// The end that frames are sent into.
pub const PEER: &str = "fsgen0";

/// Says loudly why a test does not run; in CI, where it must, it fails.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI, and this test cannot run: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Moves this thread into a namespace of its own with a pair of interfaces, both up; `false`, said loudly, where that
/// cannot be.
pub fn namespace(queues: u32) -> bool {
    // SAFETY: the call takes no pointer.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        let error = io::Error::last_os_error();
        skip(&format!("no network namespace can be made, root is needed: {error}"));
        return false;
    }
    // Or the kernel sends frames of its own as soon as an interface is up.
    for which in ["all", "default"] {
        let file = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        let _ = std::fs::write(file, "1");
    }
    let (rx, tx) = (format!("numrxqueues {queues}"), format!("numtxqueues {queues}"));
    let made = try_ip(&format!("link add {PORT} {rx} {tx} type veth peer name {PEER} {rx} {tx}"));
    if let Err(error) = made {
        skip(&format!("no veth pair can be made: {error}"));
        return false;
    }
    // The loopback interface, for what is served there.
    for name in ["lo", PORT, PEER] {
        ip(&format!("link set {name} up"));
    }
    true
}

fn try_ip(arguments: &str) -> io::Result<String> {
    let out =
        Command::new("ip").args(arguments.split_whitespace()).stdin(Stdio::null()).output()?;
    if !out.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs `ip` in this thread's namespace.
pub fn ip(arguments: &str) -> String {
    try_ip(arguments).unwrap_or_else(|error| panic!("ip {arguments}: {error}"))
}

/// Lets an interface collect frames (GRO): a veth end then takes frames from XDP without a program of its own.
pub fn collect_frames(interface: &str) {
    const SET_GRO: [u32; 2] = [0x2c, 1];
    // SAFETY: the call takes no pointer.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all fields are integers, arrays of them, or pointers that may be null.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(interface.len() < request.ifr_name.len(), "{interface}");
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let mut value = SET_GRO;
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the request names a value of the two words that the command has, and both outlive the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), 0x8946, &raw mut request) };
    assert_eq!(done, 0, "{interface}: {}", io::Error::last_os_error());
}

/// A socket that sends whole frames out of an interface.
pub struct Sender {
    socket: OwnedFd,
    to: libc::sockaddr_ll,
}

impl Sender {
    pub fn new(interface: &str) -> Self {
        let name = std::ffi::CString::new(interface).expect("a name");
        // SAFETY: the name ends with a zero byte and outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "{interface}");
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all fields are integers or arrays of them.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index as i32;
        to.sll_halen = 6;
        Self { socket, to }
    }

    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: pointers and lengths are those of values that outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Takes capabilities away from this thread: those of `bits`.
pub fn drop_capabilities(bits: &[u32]) {
    // `_LINUX_CAPABILITY_VERSION_3`, this thread; then effective, permitted and inheritable, lower words first.
    let mut header = [0x2008_0522u32, 0];
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: the kernel writes two triples of words for this version, and both arrays outlive the call.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0, "{}", io::Error::last_os_error());
    for &bit in bits {
        sets[bit as usize / 32].iter_mut().for_each(|set| *set &= !(1 << (bit % 32)));
    }
    // SAFETY: as above; the kernel only reads.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}
