//! The binary as a process: a directory of its own, a live run, and waiting for what it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flowscope::capture::write::PcapWriter;
use flowscope::{Frame, LinkType, Timestamp};
use serde_json::Value;

/// A directory of a test's own, removed with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = format!("flowscope-test-{name}-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(dir);
        std::fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("a name in UTF-8")
    }

    /// Files in it.
    pub fn files(&self) -> usize {
        std::fs::read_dir(&self.0).expect("a directory").count()
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a name in UTF-8").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn flowscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowscope"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// A live run; killed with the test.
pub struct Live {
    pub child: Child,
    /// All that it said so far.
    messages: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Live {
    /// Starts it, and waits until frames come to it.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = flowscope(&["live", "--metrics", "127.0.0.1:0"]);
        command.args(arguments).envs(environment.iter().copied());
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("standard error"));
        let messages = Arc::new(Mutex::new(String::new()));
        let of_reader = Arc::clone(&messages);
        let reader = std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| {
                *of_reader.lock().expect("nobody panics here") += &(line + "\n");
            });
        });
        let mut live = Self { child, messages, reader: Some(reader) };
        until("it serves metrics", || {
            let is_over = live.child.try_wait().expect("its status").is_some();
            assert!(!is_over || live.said("serving metrics on"), "it ended:\n{}", live.text());
            live.said("serving metrics on")
        });
        live
    }

    pub fn text(&self) -> String {
        self.messages.lock().expect("nobody panics here").clone()
    }

    pub fn said(&self, what: &str) -> bool {
        self.text().contains(what)
    }

    /// Waits until it says `what` for the so-manieth time, for up to 20 s.
    pub fn until_said(&self, what: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.text().matches(what).count() < times {
            assert!(Instant::now() < deadline, "{what:?}: not in 20 s:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Status and body of a page that it serves.
    pub fn page(&self, path: &str) -> (u16, String) {
        let text = self.text();
        let address = text.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let mut stream = TcpStream::connect(address.expect("an address")).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and was not waited for, so that its number is its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for its end: the exit code, and all that it said.
    pub fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let code = loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                break status.code();
            }
            assert!(Instant::now() < deadline, "it did not end in 30 s");
            std::thread::sleep(Duration::from_millis(10));
        };
        self.reader.take().into_iter().for_each(|reader| reader.join().expect("the messages"));
        (code, self.text())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the frames to a capture file, 10 µs apart, and replays it: where the records are.
pub fn replay(scratch: &Scratch, frames: &[Vec<u8>], more: &[&str]) -> String {
    let (capture, out) = (scratch.path("sent.pcap"), scratch.path("replayed.jsonl"));
    let file = std::fs::File::create(&capture).expect("a file");
    let mut writer =
        PcapWriter::new(std::io::BufWriter::new(file), LinkType::ETHERNET).expect("it");
    for (number, data) in frames.iter().enumerate() {
        let ts = Timestamp::from_nanos(1_700_000_000_000_000_000 + number as u64 * 10_000);
        let wire_len = data.len() as u32;
        let frame = Frame { ts, wire_len, link: LinkType::ETHERNET, interface: 0, data };
        writer.write(&frame).expect("a frame");
    }
    writer.finish().expect("written");
    let output = format!("jsonl:{out}");
    let mut run = flowscope(&["replay", &capture, "--output", &output]);
    let run = run.args(more).output().expect("it runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    out
}

pub fn json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("JSON")
}

/// Waits, for up to 20 s.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < deadline, "{what}: not in 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn lines(path: &str) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}
