//! The spool's files: segments of lines, each a checksum and a batch as JSON.
//!
//! A batch with a machine's request in it holds credentials, so its JSON is sealed ([`super::seal`]) and
//! base64 on disk; the others can be read with any tool.
//!
//! A segment is named by the place of its first batch in this journal, counted from 1. The region's number
//! of a batch is that place plus a base, which is what the region had stored of this rack when the journal
//! was first presented to it: a rack that lost its disk goes on where the region remembers it to have been.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use link::message::{Batch, Report};
use sha2::{Digest as _, Sha256};

use super::kept::Kept;
use super::seal::Seal;

/// Bytes after which a new segment is begun.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// Longest line that is read back, in bytes: the largest request, base64 inside JSON, sealed, base64 again.
pub const MAX_LINE: u64 = 96 << 20;
/// Bytes kept of batches that the region refused.
pub const MAX_SET_ASIDE: u64 = 16 << 20;
/// Bytes of the checksum of a line.
const CHECKSUM: usize = 8;
/// Ends the names of segments.
const SUFFIX: &str = ".reports";
/// The file with the base.
const BASE: &str = "base";
/// The file with the last place that the region has stored.
const DONE: &str = "done";
/// Batches that the region refused.
const REFUSED: &str = "refused";

/// Whether a write is forced to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Left to the kernel.
    #[default]
    Kernel,
    /// On disk when the call returns.
    Disk,
}

/// What waits for the region.
#[derive(Clone, Debug, PartialEq)]
pub enum Waiting {
    /// This batch is next.
    Batch(Batch),
    /// Nothing, or nothing that has a number yet.
    Nothing,
}

/// What an earlier run left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Batches that wait for the region.
    pub batches: u64,
    /// The deliveries among them.
    pub kept: Vec<Kept>,
}

/// The spool's files. One per directory.
pub struct Journal {
    dir: PathBuf,
    seal: Seal,
    segments: VecDeque<Segment>,
    /// Open for writing: the last segment.
    tail: Option<File>,
    /// Open for reading: a segment, by its first place, and the offset of the next line.
    head: Option<(u64, BufReader<File>)>,
    /// Read and not yet done, so that a retry does not read it again.
    current: Option<(u64, Vec<Report>)>,
    base: Option<u64>,
    /// Last place written.
    last: u64,
    /// Last place stored by the region.
    done: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u64,
    bytes: u64,
}

impl Journal {
    /// Opens a directory, which is created. A torn last line is cut off.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(dir: PathBuf) -> io::Result<(Self, Left)> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let seal = Seal::open(&dir)?;
        let base = read_number(&dir.join(BASE))?;
        let done = read_number(&dir.join(DONE))?.unwrap_or(0);
        let mut names: Vec<u64> = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let name = entry?.file_name();
            if let Some(first) = name
                .to_str()
                .and_then(|n| n.strip_suffix(SUFFIX))
                .and_then(|n| n.parse().ok())
            {
                names.push(first);
            }
        }
        names.sort_unstable();
        let mut journal = Self {
            dir,
            seal,
            segments: VecDeque::new(),
            tail: None,
            head: None,
            current: None,
            base,
            last: done,
            done,
        };
        let mut left = Left::default();
        for first in names {
            journal.recover(first, &mut left)?;
        }
        Ok((journal, left))
    }

    fn recover(&mut self, first: u64, left: &mut Left) -> io::Result<()> {
        let path = self.segment_path(first);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut reader = BufReader::new(file);
        let (mut place, mut good) = (first, 0);
        loop {
            match read_line(&mut reader, &self.seal)? {
                Line::Reports { reports, bytes } => {
                    good += bytes;
                    if place > self.done {
                        left.batches += 1;
                        left.kept.extend(Kept::among(&reports));
                    }
                    place += 1;
                }
                Line::End => break,
                Line::Torn => {
                    tracing::warn!(path = %path.display(), offset = good, "a torn line in the spool was cut off");
                    reader.get_ref().set_len(good)?;
                    break;
                }
            }
        }
        self.last = self.last.max(place - 1);
        if place == first {
            fs::remove_file(&path)?;
        } else {
            self.segments.push_back(Segment { first, bytes: good });
        }
        Ok(())
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// Batches that wait for the region.
    #[must_use]
    pub const fn waiting(&self) -> u64 {
        self.last.saturating_sub(self.done)
    }

    /// Writes a batch at the end.
    ///
    /// # Errors
    /// When the disk fails; the batch is then not part of the journal.
    pub fn append(&mut self, reports: &[Report], durability: Durability) -> io::Result<()> {
        let json = serde_json::to_vec(reports).map_err(io::Error::other)?;
        let payload = if reports.iter().any(|r| matches!(r, Report::Passed { .. })) {
            STANDARD.encode(self.seal.seal(json)?).into_bytes()
        } else {
            json
        };
        let line = [checksum(&payload).as_bytes(), b" ", &payload, b"\n"].concat();

        if self.tail.is_none()
            || self
                .segments
                .back()
                .is_none_or(|s| s.bytes >= SEGMENT_BYTES)
        {
            self.begin_segment()?;
        }
        let (Some(file), Some(segment)) = (self.tail.as_mut(), self.segments.back_mut()) else {
            return Err(io::Error::other("the spool has no segment"));
        };
        let written = file.write_all(&line).and_then(|()| {
            if durability == Durability::Disk {
                file.sync_data()
            } else {
                Ok(())
            }
        });
        if let Err(error) = written {
            // Half a line would hide every later one: cut it off, and go on in another file.
            file.set_len(segment.bytes).ok(); // else it is the torn end of its segment, which is expected
            self.tail = None;
            return Err(error);
        }
        segment.bytes += line.len() as u64;
        self.last += 1;
        Ok(())
    }

    /// A new segment per run and per [`SEGMENT_BYTES`]: what an earlier run wrote is never written to again.
    fn begin_segment(&mut self) -> io::Result<()> {
        let first = self.last + 1;
        if self.segments.back().is_some_and(|s| s.first == first) {
            fs::remove_file(self.segment_path(first))?;
            self.segments.pop_back();
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(self.segment_path(first))?;
        File::open(&self.dir)?.sync_all()?;
        self.segments.push_back(Segment { first, bytes: 0 });
        self.tail = Some(file);
        // Whoever has read all that was there stands at the end of another file.
        self.head = self.head.take().filter(|(at, _)| *at < first);
        Ok(())
    }

    /// The region has stored batches up to number `last_batch`. Returns the clients of the deliveries that
    /// are done with that, once for each.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn welcome(&mut self, last_batch: u64) -> io::Result<Vec<Kept>> {
        let Some(base) = self.base else {
            write_number(&self.dir, BASE, last_batch)?;
            self.base = Some(last_batch);
            return Ok(Vec::new());
        };
        let mut gone = Vec::new();
        while let Waiting::Batch(batch) = self.front()? {
            if batch.number > last_batch {
                break;
            }
            gone.extend(Kept::among(&batch.reports));
            self.done(batch.number)?;
        }
        if base + self.last < last_batch {
            // A power cut took the end of the journal, which the region had stored already.
            let base = last_batch - self.last;
            write_number(&self.dir, BASE, base)?;
            self.base = Some(base);
        }
        Ok(gone)
    }

    /// The batch that is next.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn front(&mut self) -> io::Result<Waiting> {
        let Some(base) = self.base else {
            return Ok(Waiting::Nothing);
        };
        loop {
            let place = self.done + 1;
            if place > self.last {
                return Ok(Waiting::Nothing);
            }
            if self.current.as_ref().is_some_and(|(p, _)| *p == place) {
                break;
            }
            match self.read(place) {
                Ok(reports) => {
                    self.current = Some((place, reports));
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    // What is behind the damage must not wait for ever.
                    let next = self
                        .segments
                        .iter()
                        .find(|s| s.first > place)
                        .map_or(self.last + 1, |s| s.first);
                    tracing::error!(from = place, to = next - 1, %error, "batches in the spool are damaged and are lost");
                    self.done = next - 1;
                    self.head = None;
                }
                Err(error) => return Err(error),
            }
        }
        match &self.current {
            Some((place, reports)) => Ok(Waiting::Batch(Batch {
                number: base + place,
                reports: reports.clone(),
            })),
            None => Ok(Waiting::Nothing),
        }
    }

    fn read(&mut self, place: u64) -> io::Result<Vec<Report>> {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "the spool has no such batch");
        let segment = *self
            .segments
            .iter()
            .rev()
            .find(|s| s.first <= place)
            .ok_or_else(missing)?;
        // Reading goes on where it was, which is right unless a segment was skipped or read before.
        let mut next = match self.head.take() {
            Some((at, reader)) if at == place => Some(reader),
            _ => None,
        };
        if next.is_none() {
            let mut reader = BufReader::new(File::open(self.segment_path(segment.first))?);
            for _ in segment.first..place {
                if !matches!(read_line(&mut reader, &self.seal)?, Line::Reports { .. }) {
                    return Err(missing());
                }
            }
            next = Some(reader);
        }
        let mut reader = next.ok_or_else(missing)?;
        match read_line(&mut reader, &self.seal)? {
            Line::Reports { reports, .. } => {
                if self.segments.iter().all(|s| s.first != place + 1) {
                    self.head = Some((place + 1, reader));
                }
                Ok(reports)
            }
            Line::End | Line::Torn => Err(missing()),
        }
    }

    /// The region has stored the batch with this number, which was next. Its segment goes with its last batch.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn done(&mut self, number: u64) -> io::Result<()> {
        let Some(base) = self.base else { return Ok(()) };
        let place = number.saturating_sub(base);
        if place <= self.done || place > self.last {
            return Ok(());
        }
        self.done = place;
        self.current = None;
        let whole = self.segments.len() > 1
            && self.segments.get(1).is_some_and(|s| s.first <= place + 1)
            || place == self.last
                && self
                    .segments
                    .front()
                    .is_some_and(|s| s.bytes >= SEGMENT_BYTES);
        if whole {
            self.remove_done()?;
        }
        Ok(())
    }

    /// Removes segments whose batches are all done. The place is written first: it must outlive them.
    fn remove_done(&mut self) -> io::Result<()> {
        write_number(&self.dir, DONE, self.done)?;
        while let Some(front) = self.segments.front().copied() {
            let end = self.segments.get(1).map_or(self.last, |s| s.first - 1);
            if end > self.done {
                break;
            }
            if self.segments.len() == 1 {
                self.tail = None;
            }
            self.head = None;
            fs::remove_file(self.segment_path(front.first))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Keeps a batch that the region refused, for a person to look at.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn set_aside(&self, batch: &Batch) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.dir.join(REFUSED))?;
        if file.metadata()?.len() > MAX_SET_ASIDE {
            return Err(io::Error::other("enough refused batches are kept"));
        }
        let mut kept = batch.clone();
        for report in &mut kept.reports {
            if let Report::Passed { request, .. } = report {
                // What is kept for people to look at holds no credentials.
                request.headers.clear();
                request.body.clear();
            }
        }
        let mut line = serde_json::to_vec(&kept).map_err(io::Error::other)?;
        line.push(b'\n');
        file.write_all(&line)
    }

    fn segment_path(&self, first: u64) -> PathBuf {
        self.dir.join(format!("{first:020}{SUFFIX}"))
    }
}

enum Line {
    Reports { reports: Vec<Report>, bytes: u64 },
    End,
    Torn,
}

fn read_line(reader: &mut BufReader<File>, seal: &Seal) -> io::Result<Line> {
    let mut line = Vec::new();
    let bytes = reader
        .by_ref()
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)? as u64;
    if bytes == 0 {
        return Ok(Line::End);
    }
    let parsed = line.strip_suffix(b"\n").and_then(|l| {
        let (sum, rest) = l.split_at_checked(CHECKSUM * 2)?;
        let payload = rest.strip_prefix(b" ")?;
        if checksum(payload).as_bytes() != sum {
            return None;
        }
        if payload.starts_with(b"[") {
            serde_json::from_slice(payload).ok()
        } else {
            serde_json::from_slice(&seal.open_sealed(STANDARD.decode(payload).ok()?)?).ok()
        }
    });
    Ok(parsed.map_or(Line::Torn, |reports| Line::Reports { reports, bytes }))
}

fn checksum(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..CHECKSUM])
}

fn read_number(path: &Path) -> io::Result<Option<u64>> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} does not hold a number", path.display()),
            )
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn write_number(dir: &Path, name: &str, number: u64) -> io::Result<()> {
    crate::rack::write_atomically(&dir.join(name), number.to_string().as_bytes())
}
