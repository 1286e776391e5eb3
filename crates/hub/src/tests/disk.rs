//! What a power cut may leave of the files of a process, told by its system calls.
//!
//! A file's bytes are safe once it was fsynced, a name once its directory was; whatever came after
//! may be there, torn at sectors, in another order, or not at all. That is weaker than any file
//! system in use, on purpose.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What a file holds: bytes, then zeros up to its length.
#[derive(Clone, Default, Hash)]
struct Content {
    bytes: Vec<u8>,
    length: usize,
}

enum FileOp {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Content {
    fn apply(&mut self, op: &FileOp) {
        match op {
            FileOp::Write(at, bytes) => self.write(*at, bytes),
            FileOp::Length(length) => {
                self.bytes.truncate(*length);
                self.length = *length;
            }
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.length = self.length.max(end);
        let useful = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if self.bytes.len() < at + useful {
            self.bytes.resize(at + useful, 0);
        }
        let end = end.min(self.bytes.len());
        if at < end {
            self.bytes[at..end].copy_from_slice(&bytes[..end - at]);
        }
    }

    /// Writes only those sectors that `kept` says; what the file grew by reads as zeros.
    fn write_torn(&mut self, at: usize, bytes: &[u8], mut kept: impl FnMut() -> bool) {
        self.length = self.length.max(at + bytes.len());
        let mut from = 0;
        while from < bytes.len() {
            let to = bytes.len().min((at + from) / SECTOR * SECTOR + SECTOR - at);
            if kept() {
                self.write(at + from, &bytes[from..to]);
            }
            from = to;
        }
    }
}

/// A change of a directory: names and what they stand for afterwards.
type Names = Vec<(String, Option<usize>)>;

enum Node {
    File { safe: Content, now: Content, since: Vec<FileOp> },
    Directory { safe: BTreeMap<String, usize>, now: BTreeMap<String, usize>, since: Vec<Names> },
}

struct Handle {
    node: usize,
    path: String,
    at: usize,
    append: bool,
}

/// The files under one directory, as the traced process sees them and as a disk may.
pub struct Disk {
    root: String,
    nodes: Vec<Node>,
    handles: BTreeMap<i64, Handle>,
    /// Calls that began and did not end yet, by thread: their text, and for a sync what was pending.
    begun: BTreeMap<String, (String, Vec<usize>)>,
}

/// What a line of the trace meant, where that matters outside.
pub enum Event {
    /// Something is about to be made safe, or has just been.
    Sync,
    /// A line was written to the file `outside`.
    Told(String),
}

/// How the part that was not safe fares in a power cut.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Dropped,
    Kept,
    /// All up to some moment; the last write torn.
    Cut,
    /// Any of it, in any order, each write torn.
    Shuffled,
    /// Files have their new lengths, and zeros for bytes.
    Zeros,
}

impl Disk {
    pub fn new(root: &Path) -> Disk {
        let top =
            Node::Directory { safe: BTreeMap::new(), now: BTreeMap::new(), since: Vec::new() };
        Disk {
            root: root.display().to_string(),
            nodes: vec![top],
            handles: BTreeMap::new(),
            begun: BTreeMap::new(),
        }
    }

    /// Takes one line of `strace -f -xx`.
    pub fn line(&mut self, line: &str) -> Option<Event> {
        let (thread, rest) = line.trim_start().split_once(' ')?;
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            if start.starts_with("close(") {
                // Before it has ended, another thread may be given the same number anew.
                numbers(start).first().map(|handle| self.handles.remove(handle));
                return None;
            }
            let pending = self.pending(start);
            let syncs = is_sync(start);
            self.begun.insert(thread.to_owned(), (start.to_owned(), pending));
            return syncs.then_some(Event::Sync);
        }
        if let Some(end) = rest.strip_prefix("<... ") {
            let (_, end) = end.split_once(" resumed>")?;
            let (start, pending) = self.begun.remove(thread)?;
            return self.call(&format!("{start}{end}"), &pending);
        }
        let pending = self.pending(rest);
        self.call(rest, &pending)
    }

    /// How much of each file or directory waits when a sync of one begins.
    fn pending(&self, call: &str) -> Vec<usize> {
        let Some(handle) = is_sync(call).then(|| numbers(call)).and_then(|n| n.first().copied())
        else {
            return Vec::new();
        };
        let waiting = self.handles.get(&handle).map(|handle| match &self.nodes[handle.node] {
            Node::File { since, .. } => since.len(),
            Node::Directory { since, .. } => since.len(),
        });
        waiting.into_iter().collect()
    }

    fn call(&mut self, call: &str, pending: &[usize]) -> Option<Event> {
        let (name, rest) = call.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(" = "))?;
        let result: i64 = result.split(' ').next()?.parse().ok()?;
        if result < 0 {
            return None;
        }
        let arguments: Vec<&str> = arguments.trim_end().trim_end_matches(')').split(", ").collect();
        let number = |at: usize| arguments.get(at).and_then(|text| text.trim().parse::<i64>().ok());
        match name {
            "openat" => {
                let path = self.path(number(0), &unquoted(arguments[1]))?;
                let flags = arguments[2];
                let node = match self.find(&path) {
                    Some(node) => node,
                    None => self.make(&path, true)?,
                };
                if flags.contains("O_TRUNC") {
                    self.change(node, FileOp::Length(0));
                }
                let append = flags.contains("O_APPEND");
                self.handles.insert(result, Handle { node, path, at: 0, append });
            }
            "close" => drop(self.handles.remove(&number(0)?)),
            "dup" | "fcntl" if name == "dup" || arguments[1].starts_with("F_DUPFD") => {
                let Handle { node, path, at, append } = self.handles.get(&number(0)?)?;
                let handle = Handle { node: *node, path: path.clone(), at: *at, append: *append };
                assert_eq!(handle.at, 0, "a moved handle is shared: {call}");
                self.handles.insert(result, handle);
            }
            "lseek" => self.handles.get_mut(&number(0)?)?.at = result as usize,
            "read" => self.handles.get_mut(&number(0)?)?.at += result as usize,
            "write" | "pwrite64" => {
                let bytes = bytes_of(arguments[1]);
                assert!(bytes.len() >= result as usize, "the trace is cut short: {name}");
                let place = (name == "pwrite64").then(|| number(3)).flatten();
                let written = bytes[..result as usize].to_vec();
                if self.write(number(0)?, place, written)?.ends_with("/outside") {
                    return Some(Event::Told(String::from_utf8(bytes).unwrap()));
                }
            }
            "copy_file_range" => {
                let from = self.handles.get_mut(&number(0)?)?;
                let (node, at) = (from.node, from.at);
                from.at += result as usize;
                let Node::File { now, .. } = &self.nodes[node] else { return None };
                let mut bytes = now.bytes.get(at..).unwrap_or_default().to_vec();
                bytes.resize(result as usize, 0);
                self.write(number(2)?, None, bytes)?;
            }
            "ftruncate" => {
                let node = self.handles.get(&number(0)?)?.node;
                self.change(node, FileOp::Length(number(1)? as usize));
            }
            "fsync" | "fdatasync" => {
                let node = self.handles.get(&number(0)?)?.node;
                self.settle(node, pending.first().copied().unwrap_or(0));
                return Some(Event::Sync);
            }
            "mkdir" => {
                let path = self.path(None, &unquoted(arguments[0]))?;
                self.make(&path, false)?;
            }
            "unlink" | "rmdir" => {
                let path = self.path(None, &unquoted(arguments[0]))?;
                self.rename(&path, None);
            }
            "unlinkat" => {
                let path = self.path(number(0), &unquoted(arguments[1]))?;
                self.rename(&path, None);
            }
            "rename" => {
                let path = self.path(None, &unquoted(arguments[0]))?;
                self.rename(&path, Some(self.path(None, &unquoted(arguments[1]))?));
            }
            "renameat" => {
                let path = self.path(number(0), &unquoted(arguments[1]))?;
                self.rename(&path, Some(self.path(number(2), &unquoted(arguments[3]))?));
            }
            _ => {
                let handle = number(0).is_some_and(|handle| self.handles.contains_key(&handle));
                let named = arguments.iter().filter(|text| text.starts_with('"'));
                let path = named.into_iter().any(|text| self.path(None, &unquoted(text)).is_some());
                assert!(!handle && !path || name == "fcntl", "not modelled: {call:.200}");
            }
        }
        None
    }

    /// A path under the root, from a handle or whole.
    fn path(&self, from: Option<i64>, path: &str) -> Option<String> {
        let whole = match from {
            Some(handle) if !path.starts_with('/') => {
                format!("{}/{path}", self.handles.get(&handle)?.path)
            }
            _ => path.to_owned(),
        };
        let inside = whole == self.root || whole.starts_with(&format!("{}/", self.root));
        inside.then(|| whole.trim_end_matches('/').to_owned())
    }

    fn find(&self, path: &str) -> Option<usize> {
        let mut node = 0;
        for name in path[self.root.len()..].split('/').filter(|name| !name.is_empty()) {
            let Node::Directory { now, .. } = &self.nodes[node] else { return None };
            node = *now.get(name)?;
        }
        Some(node)
    }

    fn parent(&self, path: &str) -> (usize, String) {
        let (parent, name) = path.rsplit_once('/').unwrap();
        (self.find(parent).unwrap_or_else(|| panic!("no directory for {path}")), name.to_owned())
    }

    fn names(&mut self, directory: usize, names: Names) {
        let Node::Directory { now, since, .. } = &mut self.nodes[directory] else { panic!() };
        apply(now, &names);
        since.push(names);
    }

    fn make(&mut self, path: &str, file: bool) -> Option<usize> {
        let node = self.nodes.len();
        let (safe, now) = (Content::default(), Content::default());
        self.nodes.push(if file {
            Node::File { safe, now, since: Vec::new() }
        } else {
            Node::Directory { safe: BTreeMap::new(), now: BTreeMap::new(), since: Vec::new() }
        });
        let (parent, name) = self.parent(path);
        self.names(parent, vec![(name, Some(node))]);
        Some(node)
    }

    fn rename(&mut self, from: &str, to: Option<String>) {
        let node = self.find(from);
        let (parent, name) = self.parent(from);
        let mut names = vec![(name, None)];
        if let Some(to) = to {
            let (other, name) = self.parent(&to);
            assert_eq!(parent, other, "a rename between directories is not modelled");
            names.push((name, node));
        }
        self.names(parent, names);
    }

    fn change(&mut self, node: usize, op: FileOp) {
        if let Node::File { now, since, .. } = &mut self.nodes[node] {
            now.apply(&op);
            since.push(op);
        }
    }

    /// Writes through a handle; gives the file's path.
    fn write(&mut self, handle: i64, place: Option<i64>, bytes: Vec<u8>) -> Option<String> {
        let handle = self.handles.get_mut(&handle)?;
        let Node::File { now, .. } = &self.nodes[handle.node] else { return None };
        let at = match place {
            Some(at) => at as usize,
            None if handle.append => now.length,
            None => handle.at,
        };
        if place.is_none() {
            handle.at = at + bytes.len();
        }
        let (node, path) = (handle.node, handle.path.clone());
        self.change(node, FileOp::Write(at, bytes));
        Some(path)
    }

    /// The first `count` changes that wait are safe.
    fn settle(&mut self, node: usize, count: usize) {
        match &mut self.nodes[node] {
            Node::File { safe, since, .. } => {
                since.drain(..count).for_each(|op| safe.apply(&op));
            }
            Node::Directory { safe, since, .. } => {
                since.drain(..count).for_each(|names| apply(safe, &names));
            }
        }
    }

    /// Writes what a power cut now may leave into a directory; gives a number for what it is.
    pub fn image(&self, into: &Path, fate: Fate, random: &mut impl FnMut(u64) -> u64) -> u64 {
        let mut hash = std::hash::DefaultHasher::new();
        self.image_of(0, into, fate, random, &mut hash);
        std::hash::Hasher::finish(&hash)
    }

    fn image_of(
        &self,
        node: usize,
        into: &Path,
        fate: Fate,
        random: &mut impl FnMut(u64) -> u64,
        hash: &mut std::hash::DefaultHasher,
    ) {
        use std::hash::Hash;
        match &self.nodes[node] {
            Node::Directory { safe, since, .. } => {
                let mut names = safe.clone();
                let cut = random(since.len() as u64 + 1) as usize;
                for (at, change) in since.iter().enumerate() {
                    let kept = match fate {
                        Fate::Dropped => false,
                        Fate::Kept | Fate::Zeros => true,
                        Fate::Cut => at < cut,
                        Fate::Shuffled => random(2) == 0,
                    };
                    if kept {
                        apply(&mut names, change);
                    }
                }
                std::fs::create_dir_all(into).unwrap();
                for (name, node) in names.iter().filter(|(name, _)| *name != "outside") {
                    name.hash(hash);
                    self.image_of(*node, &into.join(name), fate, random, hash);
                }
            }
            Node::File { safe, since, .. } => {
                let mut content = safe.clone();
                let cut = random(since.len() as u64 + 1) as usize;
                for (at, op) in since.iter().enumerate() {
                    match (fate, op) {
                        (Fate::Kept, op) => content.apply(op),
                        (Fate::Zeros, FileOp::Length(_)) => content.apply(op),
                        (Fate::Zeros, FileOp::Write(at, bytes)) => {
                            content.length = content.length.max(at + bytes.len());
                        }
                        (Fate::Cut, op) if at < cut => content.apply(op),
                        (Fate::Cut, FileOp::Write(place, bytes)) if at == cut => {
                            let mut left = random(bytes.len() as u64 / SECTOR as u64 + 2);
                            content.write_torn(*place, bytes, || {
                                left = left.saturating_sub(1);
                                left > 0
                            });
                        }
                        (Fate::Shuffled, FileOp::Write(place, bytes)) if random(3) > 0 => {
                            content.write_torn(*place, bytes, || random(2) == 0);
                        }
                        (Fate::Shuffled, op) if random(2) == 0 => content.apply(op),
                        _ => {}
                    }
                }
                content.hash(hash);
                let mut file = std::fs::File::create(into).unwrap();
                file.write_all(&content.bytes[..content.bytes.len().min(content.length)]).unwrap();
                file.set_len(content.length as u64).unwrap();
            }
        }
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Names) {
    for (name, node) in change {
        match node {
            Some(node) => drop(names.insert(name.clone(), *node)),
            None => drop(names.remove(name)),
        }
    }
}

fn is_sync(call: &str) -> bool {
    call.starts_with("fsync(") || call.starts_with("fdatasync(")
}

fn numbers(call: &str) -> Vec<i64> {
    let inside = call.split_once('(').map_or("", |(_, rest)| rest);
    let inside = inside.split(')').next().unwrap_or_default();
    inside.split(", ").filter_map(|text| text.trim().parse().ok()).collect()
}

/// The bytes of `"\x61\x62"`.
fn bytes_of(text: &str) -> Vec<u8> {
    let inside = text.trim_matches(|c| c == '"' || c == '.');
    inside.split("\\x").skip(1).map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect()
}

fn unquoted(text: &str) -> String {
    String::from_utf8(bytes_of(text)).unwrap()
}

#[test]
fn a_number_is_given_anew_while_its_close_goes_on() {
    let mut disk = Disk::new(Path::new("/d"));
    let (hex, b) = (|byte: &str| format!("\\x2f\\x64\\x2f\\x{byte}"), "\\x62");
    for line in [
        format!("1 openat(AT_FDCWD, \"{}\", O_WRONLY|O_CREAT, 0600) = 5", hex("61")),
        "1 close(5 <unfinished ...>".to_owned(),
        format!("2 openat(AT_FDCWD, \"{}\", O_WRONLY|O_CREAT, 0600) = 5", hex("62")),
        "1 <... close resumed>) = 0".to_owned(),
        format!("2 write(5, \"{b}\", 1) = 1"),
        "2 fsync(5) = 0".to_owned(),
    ] {
        disk.line(&line);
    }
    let written = disk.find("/d/b").map(|node| &disk.nodes[node]);
    assert!(matches!(written, Some(Node::File { safe, .. }) if safe.bytes == b"b"));
}
