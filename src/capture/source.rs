//! The bytes of one file: mapped, held, or read through a bounded buffer; compressed or not.
//!
//! Contract: [`Source::bytes`] are the bytes at hand, from [`Source::base`] on. The reader keeps its place in
//! them itself and asks for [`Source::more`] when a record is not whole. A buffer never grows past
//! [`WANTED_BYTES_MAX`], whatever the input says. What is compressed is known by its first bytes, not its name.
//!
//! Only uncompressed regular files that are in the page cache are mapped, and only where that is [safe](super::map); who maps asks for
//! [`Source::advance`] before it looks at bytes. A file that grows is read as far as it went when it was opened.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cached;
use super::map::Map;
use super::pcapng::BLOCK_BYTES_MAX;
use super::unpack::Unpack;

/// What a stream's buffer begins with: large enough that a system call is rare, small enough for the cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// The most that a reader may want to see at once.
pub(super) const WANTED_BYTES_MAX: usize = BLOCK_BYTES_MAX;

/// First bytes of a gzip member (RFC 1952 section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// First bytes of a zstd frame (RFC 8878 section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Last three of the first bytes of a skippable zstd frame, as parallel compressors write them in front
/// (RFC 8878 section 3.1.2); the first one is 0x50 to 0x5f.
const ZSTD_SKIPPABLE_MAGIC: [u8; 3] = [0x2a, 0x4d, 0x18];

/// Any stream of bytes.
pub(super) type BoxedRead = Box<dyn Read + Send>;

/// The bytes of one file, as far as they are at hand.
pub(super) struct Source {
    storage: Storage,
    /// How many bytes were let go before those at hand.
    base: u64,
    /// Where more bytes come from, until they end.
    reader: Option<BoxedRead>,
    /// Why they ended, if not because all were read.
    failure: Option<io::Error>,
    /// Bytes taken from the disk or pipe so far; `None` when everything is at hand.
    taken: Option<Arc<AtomicU64>>,
    /// Size on disk, when it is known.
    total: Option<u64>,
    /// What is read, where that is a regular file that is not compressed.
    file: Option<Arc<File>>,
    unpacked: bool,
}

enum Storage {
    Map(Box<Map>),
    /// The first `filled` bytes of `buffer` are at hand.
    Heap {
        buffer: Vec<u8>,
        filled: usize,
    },
}

impl Source {
    /// The file at `path`, mapped if it may be and can be.
    pub(super) fn open(path: &Path, mmap: bool) -> io::Result<Self> {
        let mut file = File::open(path)?;
        cached::read_in_order(&file);
        let metadata = file.metadata()?;
        let total = metadata.is_file().then_some(metadata.len());
        let (first, found) = first_bytes(&mut file)?;
        let first = &first[..found];
        if mmap && total.is_some_and(|total| total > 0) && Packing::of(first) == Packing::Plain {
            match Map::new(file) {
                Ok(map) => return Ok(Self::whole(Storage::Map(Box::new(map)), total)),
                Err(unmapped) => file = unmapped,
            }
        }
        if total.is_some() && Packing::of(first) == Packing::Plain {
            return Self::plain(Arc::new(file), total);
        }
        Self::stream(first, Box::new(file), total)
    }

    /// A regular file that is not compressed, from its beginning, wherever others are in it.
    fn plain(file: Arc<File>, total: Option<u64>) -> io::Result<Self> {
        let from = Place { file: Arc::clone(&file), at: 0 };
        Ok(Self { file: Some(file), ..Self::stream(&[], Box::new(from), total)? })
    }

    /// The same bytes from their beginning, to be read beside this; `None` of a stream, and of what would have to be
    /// decompressed again.
    pub(super) fn again(&self) -> Option<io::Result<Self>> {
        match (&self.storage, &self.file) {
            (Storage::Map(map), _) => {
                Some(Ok(Self::whole(Storage::Map(Box::new(map.again())), self.total)))
            }
            (Storage::Heap { .. }, Some(file)) => Some(Self::plain(Arc::clone(file), self.total)),
            (Storage::Heap { .. }, None) => None,
        }
    }

    /// Standard input or any other stream.
    pub(super) fn read(mut reader: BoxedRead) -> io::Result<Self> {
        let (first, found) = first_bytes(&mut reader)?;
        Self::stream(&first[..found], reader, None)
    }

    /// Bytes that are in memory already.
    pub(super) fn memory(bytes: Vec<u8>) -> io::Result<Self> {
        let (filled, total) = (bytes.len(), Some(bytes.len() as u64));
        if Packing::of(&bytes) == Packing::Plain {
            return Ok(Self::whole(Storage::Heap { buffer: bytes, filled }, total));
        }
        let mut reader = Cursor::new(bytes);
        let (first, found) = first_bytes(&mut reader)?;
        Self::stream(&first[..found], Box::new(reader), total)
    }

    fn whole(storage: Storage, total: Option<u64>) -> Self {
        Self {
            storage,
            base: 0,
            reader: None,
            failure: None,
            taken: None,
            total,
            file: None,
            unpacked: false,
        }
    }

    /// `first` are the bytes that were taken from `reader` to see what it is.
    fn stream(first: &[u8], reader: BoxedRead, total: Option<u64>) -> io::Result<Self> {
        let packing = Packing::of(first);
        let taken = Arc::new(AtomicU64::new(0));
        let reader =
            Counted { inner: Cursor::new(first.to_vec()).chain(reader), taken: Arc::clone(&taken) };
        let reader: BoxedRead = match packing {
            Packing::Plain => Box::new(reader),
            Packing::Gzip => Box::new(Unpack::gzip(reader)),
            Packing::Zstd => Box::new(Unpack::zstd(reader)?),
        };
        Ok(Self {
            storage: Storage::Heap { buffer: vec![0; BUFFER_BYTES], filled: 0 },
            base: 0,
            reader: Some(reader),
            failure: None,
            taken: Some(taken),
            total,
            file: None,
            unpacked: packing != Packing::Plain,
        })
    }

    /// The bytes at hand.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Map(map) => map.bytes(),
            Storage::Heap { buffer, filled } => buffer.get(..*filled).unwrap_or_default(),
        }
    }

    /// Whether the bytes at hand come from memory rather than from the processor's cache.
    pub(super) fn is_mapped(&self) -> bool {
        self.map().is_some()
    }

    /// The file as it is mapped.
    pub(super) fn map(&self) -> Option<&Map> {
        match &self.storage {
            Storage::Map(map) => Some(map),
            Storage::Heap { .. } => None,
        }
    }

    /// To be called before bytes from `at` on are looked at. Where a map is not safe any more the file is read from here
    /// on: the bytes at hand then begin with what was at `at`, which is set to 0.
    #[inline]
    pub(super) fn advance(&mut self, at: &mut usize) {
        if let Storage::Map(map) = &mut self.storage
            && !map.advance(*at)
        {
            self.read_on(at);
        }
    }

    #[cold]
    fn read_on(&mut self, at: &mut usize) {
        let empty = Storage::Heap { buffer: vec![0; BUFFER_BYTES], filled: 0 };
        let Storage::Map(map) = std::mem::replace(&mut self.storage, empty) else { return };
        self.base += *at as u64;
        *at = 0;
        match map.file() {
            Ok(file) => {
                let taken = Arc::new(AtomicU64::new(self.base));
                let inner = Place { file: Arc::new(file), at: self.base };
                self.reader = Some(Box::new(Counted { inner, taken: Arc::clone(&taken) }));
                self.taken = Some(taken);
            }
            Err(error) => self.failure = Some(error),
        }
    }

    /// How many bytes came before those at hand.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Whether offsets count decompressed bytes.
    pub(super) fn unpacked(&self) -> bool {
        self.unpacked
    }

    /// Size on disk in bytes, compressed if the file is; `None` for a stream.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Bytes taken from the disk so far, given that `at` of those at hand were used.
    pub(super) fn position(&self, at: usize) -> u64 {
        self.taken.as_ref().map_or(at as u64, |taken| taken.load(Ordering::Relaxed))
    }

    /// Why the bytes ended, if not because all were read; tells it once.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Lets go of the bytes before `at`, and reads until `wanted` ones follow (at most [`WANTED_BYTES_MAX`]) or there
    /// are no more. Afterwards the bytes at hand begin with what was at `at`, which is therefore set to 0.
    ///
    /// Says whether any bytes were added; when not, there are no more, and nothing was moved.
    pub(super) fn more(&mut self, at: &mut usize, wanted: u64) -> bool {
        let (Some(reader), Storage::Heap { buffer, filled }) =
            (&mut self.reader, &mut self.storage)
        else {
            return false;
        };
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(WANTED_BYTES_MAX);
        let used = (*at).min(*filled);
        buffer.copy_within(used..*filled, 0);
        *filled -= used;
        self.base += used as u64;
        *at = 0;
        if wanted > buffer.len() {
            buffer.resize(wanted.next_power_of_two(), 0);
        }
        let before = *filled;
        // At least once: who asks for more has no use for what is there.
        while *filled < wanted.max(before + 1).min(buffer.len()) {
            match reader.read(&mut buffer[*filled..]) {
                Ok(0) => {
                    self.reader = None;
                    break;
                }
                // A reader that claims more than it was given room for is not believed.
                Ok(read) => *filled = (*filled + read).min(buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    self.reader = None;
                    break;
                }
            }
        }
        *filled > before
    }
}

/// How a file's bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    fn of(first: &[u8]) -> Self {
        if first.starts_with(&GZIP_MAGIC) {
            Self::Gzip
        } else if first.starts_with(&ZSTD_MAGIC)
            || matches!(first, [0x50..=0x5f, rest @ ..] if rest.starts_with(&ZSTD_SKIPPABLE_MAGIC))
        {
            Self::Zstd
        } else {
            Self::Plain
        }
    }
}

/// Up to four bytes off the front of `reader`, and how many there were.
fn first_bytes(reader: &mut impl Read) -> io::Result<([u8; 4], usize)> {
    let mut bytes = [0; 4];
    let mut found = 0;
    while found < bytes.len() {
        match reader.read(&mut bytes[found..]) {
            Ok(0) => break,
            Ok(read) => found = (found + read).min(bytes.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((bytes, found))
}

/// Reads a file from a place of its own: several may read one that is open once.
struct Place {
    file: Arc<File>,
    at: u64,
}

impl Read for Place {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = read_at(&self.file, buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
