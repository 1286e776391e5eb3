//! The files beside the engine: format number, roots, keyring, the acknowledged position, and the
//! copy of the engine's journal that is made before opening.
//!
//! Everything about keys lies in `DIR.keys/` (mode 0700), not in `DIR`.

use crate::{FORMAT, StoreError};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use vault::Secret;

/// The files of the two roots: the operational and the sensitive one.
const ROOTS: [&str; 2] = ["operational.key", "sensitive.key"];

/// How far the store was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub commits: u64,
    pub records: u64,
}

/// The paths of a data directory.
#[derive(Clone, Debug)]
pub struct Files {
    pub data: PathBuf,
    pub keys: PathBuf,
}

fn wrong(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.display().to_string();
    move |error| StoreError::File(path, error)
}

impl Files {
    /// `DIR` and, unless given, `DIR.keys`.
    pub fn new(data: &Path, keys: Option<&Path>) -> Files {
        let beside = || {
            let mut name = data.as_os_str().to_owned();
            name.push(".keys");
            PathBuf::from(name)
        };
        Files { data: data.to_owned(), keys: keys.map_or_else(beside, Path::to_owned) }
    }

    /// Whether there is a data directory already.
    pub fn exist(&self) -> bool {
        self.data.join("format").exists()
    }

    /// Makes the directories, the format file and two fresh root keys. What a start that was ended in
    /// the midst of this left is gone on with: roots that are there stay.
    ///
    /// # Errors
    /// When something is there already that is not ours, or cannot be written.
    pub fn create(&self) -> Result<(), StoreError> {
        let holds = |path: &Path, ours: &[&str]| {
            let found = fs::read_dir(path).into_iter().flatten().flatten();
            found.map(|entry| entry.file_name()).any(|name| !ours.iter().any(|our| name == *our))
        };
        if holds(&self.data, &["format.new"]) {
            let what = if self.exist() {
                "there is a data directory already"
            } else {
                "it is not empty, and has no `format` file"
            };
            return Err(StoreError::NotOurs(self.data.display().to_string(), what.into()));
        }
        if holds(&self.keys, &[ROOTS[0], ROOTS[1], "operational.new", "sensitive.new"]) {
            let what = "it holds keys of another data directory";
            return Err(StoreError::NotOurs(self.keys.display().to_string(), what.into()));
        }
        for directory in [&self.data, &self.keys] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(wrong(directory))?;
            // Names of directories are made durable as contents are, where those above may be opened.
            directory.ancestors().skip(1).take(2).for_each(|above| drop(sync_directory(above)));
        }
        for name in ROOTS {
            if self.keys.join(name).exists() {
                continue;
            }
            let key: [u8; 32] = vault::random();
            let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            self.replace(&self.keys.join(name), hex.as_bytes())?;
        }
        // Last: its presence says that all the rest is there.
        self.replace(&self.data.join("format"), format!("{FORMAT}\n").as_bytes())
    }

    /// Checks the format number, and brings an older one up: layouts are only added to.
    pub(crate) fn check_format(&self) -> Result<(), StoreError> {
        let path = self.data.join("format");
        let text = fs::read_to_string(&path).map_err(wrong(&path))?;
        let found = text.trim().parse().map_err(|_| {
            StoreError::NotOurs(self.data.display().to_string(), "`format` is no number".into())
        })?;
        match found {
            FORMAT => Ok(()),
            crate::OLDEST_FORMAT..FORMAT => self.replace(&path, format!("{FORMAT}\n").as_bytes()),
            _ => Err(StoreError::Format { found, known: FORMAT }),
        }
    }

    /// The operational root, and the sensitive one if its file is there.
    pub(crate) fn roots(&self) -> Result<(Secret, Option<Secret>), StoreError> {
        let read = |name: &str| -> Result<Option<Secret>, StoreError> {
            let path = self.keys.join(name);
            let text = match fs::read_to_string(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                other => other.map_err(wrong(&path))?,
            };
            let damaged = || StoreError::Damaged(format!("the key file `{}`", path.display()));
            let text = text.trim();
            let mut key = [0; 32];
            if text.len() != 64 || !text.is_ascii() {
                return Err(damaged());
            }
            for (index, byte) in key.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16)
                    .map_err(|_| damaged())?;
            }
            Ok(Some(Secret::new(key)))
        };
        let operational =
            read(ROOTS[0])?.ok_or_else(|| StoreError::NoKey("the operational root".into()))?;
        Ok((operational, read(ROOTS[1])?))
    }

    /// The keyring's bytes; none when there is no keyring yet.
    pub(crate) fn keyring(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.keys.join("keyring");
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some).map_err(wrong(&path)),
        }
    }

    /// Replaces the keyring: whatever it held before is gone.
    pub(crate) fn replace_keyring(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.replace(&self.keys.join("keyring"), bytes)
    }

    /// Appends to the keyring and makes it durable.
    pub(crate) fn append_keyring(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.keys.join("keyring");
        let mut file = OpenOptions::new().append(true).open(&path).map_err(wrong(&path))?;
        file.write_all(bytes).and_then(|()| file.sync_data()).map_err(wrong(&path))
    }

    /// Writes a file whole: beside, fsync, rename, fsync of the directory.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let beside = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            // Never the one whose fsync failed before.
            drop(fs::remove_file(&beside));
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(wrong(path))?;
        rename(&beside, path)
    }

    /// Opens the position file; gives what it says.
    pub(crate) fn position(&self) -> Result<(File, Position), StoreError> {
        let path = self.keys.join("position");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(wrong(&path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(wrong(&path))?;
        if bytes.is_empty() {
            // From now on it is only written over, in one sector of a disk.
            let start = Self::write_position(&file, Position::default());
            start.and_then(|()| file.sync_all()).map_err(wrong(&path))?;
            sync_directory(&self.keys)?;
            return Ok((file, Position::default()));
        }
        let damaged = || StoreError::Damaged(format!("the position file `{}`", path.display()));
        let bytes: [u8; 24] = bytes.try_into().map_err(|_| damaged())?;
        let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|index| bytes[at + index]));
        let position = Position { commits: number(0), records: number(8) };
        if encode(position) == bytes { Ok((file, position)) } else { Err(damaged()) }
    }

    /// Says how far the store is acknowledged. Not fsynced: it outlives the process, and
    /// [`File::sync_data`] makes it outlive the machine once a second.
    pub(crate) fn write_position(file: &File, position: Position) -> std::io::Result<()> {
        file.write_all_at(&encode(position), 0)
    }

    /// Where the engine lies.
    pub(crate) fn engine(&self) -> PathBuf {
        self.data.join("store")
    }

    /// Where the engine's journal is copied to before opening.
    pub(crate) fn rescue(&self) -> PathBuf {
        self.data.join("rescue")
    }

    /// Copies the engine's journal, which opening may cut. Where there is no room for a copy the
    /// store is opened all the same: what is lost then is still noticed.
    ///
    /// Whether a copy was made.
    pub(crate) fn copy_journal(&self) -> bool {
        let (engine, rescue) = (self.engine(), self.rescue());
        if !engine.exists() || self.is_rescue_whole() {
            // A rescue copy that is still there is older, and thus more complete.
            return false;
        }
        let beside = rescue.with_extension("new");
        let copy = || -> std::io::Result<()> {
            drop(fs::remove_dir_all(&beside));
            fs::create_dir_all(&beside)?;
            for entry in fs::read_dir(&engine)? {
                let entry = entry?;
                if entry.path().extension().is_some_and(|extension| extension == "jnl") {
                    fs::copy(entry.path(), beside.join(entry.file_name()))?;
                }
            }
            drop(fs::remove_dir_all(&rescue));
            fs::rename(&beside, &rescue)
        };
        if let Err(error) = copy() {
            drop(fs::remove_dir_all(&beside));
            tracing::warn!(%error, "the engine's journal cannot be copied before it is opened");
            return false;
        }
        true
    }

    /// Whether there is a copy, and it holds no less than the engine's journal does: the engine cuts
    /// its own, and a power cut may have cut the copy.
    fn is_rescue_whole(&self) -> bool {
        let length = |path: PathBuf| fs::metadata(path).map_or(0, |found| found.len());
        let Ok(copied) = fs::read_dir(self.rescue()) else { return false };
        let names: Vec<_> = copied.flatten().map(|entry| entry.file_name()).collect();
        let engine = self.engine();
        !names.is_empty()
            && names
                .iter()
                .all(|name| length(self.rescue().join(name)) >= length(engine.join(name)))
    }

    /// Removes the copy once the store is known to be whole.
    pub(crate) fn drop_rescue(&self) {
        drop(fs::remove_dir_all(self.rescue()));
    }

    /// Bytes left on the file system.
    pub(crate) fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.data).map_or(u64::MAX, |stat| stat.f_bavail * stat.f_frsize)
    }
}

/// Gives a file or directory another name in the same directory, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(wrong(to))?;
    to.parent().map_or(Ok(()), sync_directory)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory).and_then(|open| open.sync_all()).map_err(wrong(directory))
}

/// Makes the names in a directory and in those below it durable.
pub(crate) fn sync_directories(directory: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(directory).map_err(wrong(directory))? {
        let path = entry.map_err(wrong(directory))?.path();
        if path.is_dir() {
            sync_directories(&path)?;
        }
    }
    sync_directory(directory)
}

fn encode(position: Position) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&position.commits.to_be_bytes());
    bytes[8..16].copy_from_slice(&position.records.to_be_bytes());
    let check = vault::digest(&bytes[..16]);
    bytes[16..].copy_from_slice(&check[..8]);
    bytes
}
