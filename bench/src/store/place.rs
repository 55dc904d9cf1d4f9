//! The file or device, and its two halves: the first a formatted device for the store, the second
//! for fio.
#![allow(clippy::disallowed_methods)] // a shell: looks at the file system

use std::io;
use std::path::PathBuf;

use ogive_store::file::DeviceFile;
use ogive_store::{FormatError, FormatOptions, Label, RegionIo};

use uuid::Uuid;

use super::spec::{StoreBench, StoreBenchError};

/// The halves begin and end at multiples of this.
const ALIGN: u64 = 16 << 20;

/// Where the contenders work.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) file: DeviceFile,
    /// Bytes of each half; the second begins here.
    pub(super) half: u64,
    pub(super) label: Label,
    /// The file was made for this and goes with it.
    made: bool,
}

impl Place {
    /// Makes or opens the file, writes zeroes over all of it and formats its first half.
    pub(super) fn prepare(
        bench: &StoreBench,
        progress: &mut dyn FnMut(String),
    ) -> Result<Place, StoreBenchError> {
        let path = bench.path.clone();
        let fail = |e: FormatError| StoreBenchError::Place(format!("{}: {e}", path.display()));
        let made = !path.exists();
        let file = match made {
            true => DeviceFile::create(&path, bench.size, false),
            false => DeviceFile::open(&path),
        };
        let mut guard = Made(made.then(|| path.clone()));
        let mut file = file.map_err(|e| StoreBenchError::Place(e.to_string()))?;
        let options = FormatOptions {
            shards: 1,
            sector: file.sector(),
            log_bytes: None,
            uuid: Uuid::new_v4(),
            force: bench.force,
            quick: false,
        };
        // Over everything: fio's half, too, is to be written space. Refuses what holds data.
        ogive_store::format(&mut file, &options, &mut |done, total| {
            progress(format!("writing zeroes  {} %", done * 100 / total.max(1)));
        })
        .map_err(fail)?;
        drop(file);
        // Opened anew, it knows that all its blocks are written.
        let mut file =
            DeviceFile::open(&path).map_err(|e| StoreBenchError::Place(e.to_string()))?;
        let half = file.len() / 2 / ALIGN * ALIGN;
        let options = FormatOptions { force: true, quick: true, ..options };
        let mut part = Part { file: &mut file, len: half };
        let label = ogive_store::format(&mut part, &options, &mut |_, _| ()).map_err(fail)?;
        guard.0 = None;
        Ok(Place { path, file, half, label, made })
    }

    /// The first half.
    pub(super) fn part(&mut self) -> Part<'_> {
        Part { file: &mut self.file, len: self.half }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(Made(self.made.then(|| self.path.clone())));
    }
}

/// Removes a file that was made here.
struct Made(Option<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What cannot be removed is seen by whoever looks.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The beginning of a device.
pub(super) struct Part<'a> {
    file: &'a mut DeviceFile,
    len: u64,
}

impl Part<'_> {
    fn check(&self, addr: u64, len: usize, kind: io::ErrorKind) -> io::Result<()> {
        let inside = addr.checked_add(len as u64).is_some_and(|end| end <= self.len);
        if inside { Ok(()) } else { Err(kind.into()) }
    }
}

impl RegionIo for Part<'_> {
    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(addr, buf.len(), io::ErrorKind::UnexpectedEof)?;
        self.file.read_at(addr, buf)
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        self.check(addr, data.len(), io::ErrorKind::WriteZero)?;
        self.file.write_at(addr, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn len(&self) -> u64 {
        self.len
    }
}
