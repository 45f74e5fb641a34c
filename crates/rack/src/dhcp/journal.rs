//! The lease log on disk, and the task that lets ACKs go only after their leases are in it.
//!
//! One `fdatasync` covers everything that waited while the one before was running: a hundred machines that
//! start together cost a few syncs, not a hundred.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use wire_dhcp::record::LeaseLog;
use wire_dhcp::{LeaseRecord, Outgoing};

use super::observe::Effects;

/// The log's name in the data directory.
pub const FILE_NAME: &str = "leases.log";
/// Steps that may wait for the disk. Beyond that the engine waits and the kernel's buffers fill.
pub const QUEUE: usize = 4_096;
/// Steps that share one sync.
pub const BATCH_MAX: usize = 1_024;
/// Largest log that is read. A full table of 1,048,576 leases, four times over.
const LOG_BYTES_MAX: u64 = 1 << 29;

/// Where the lease log is kept. The one implementation outside of tests is [`DiskLog`].
pub trait Log: Send + 'static {
    /// Appends the bytes; when this returns without error they survive a power cut.
    ///
    /// # Errors
    /// When they may not survive. Nothing of them counts then.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Replaces the log by these bytes, all or nothing.
    ///
    /// # Errors
    /// When that failed; the old log is still in place.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Sends replies. Implemented by the sockets of an interface.
pub trait Transmit: Send + Sync {
    /// Sends, or drops and counts.
    fn transmit(&self, out: &Outgoing);
}

/// What waits for the disk, in order.
pub enum Step {
    /// One packet's worth.
    Commit(Commit),
    /// A new log that holds what the old one comes to.
    Compact(Vec<LeaseRecord>),
}

/// Records, and what may happen once they are on disk.
pub struct Commit {
    /// What has to be on disk.
    pub records: Vec<LeaseRecord>,
    /// Replies that promise it.
    pub sends: Vec<(Arc<dyn Transmit>, Outgoing)>,
    /// What others are told.
    pub effects: Effects,
}

/// How the disk is doing; for the service's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why leases cannot be stored; none while they can.
    pub failure: Option<String>,
    /// Bytes of the log.
    pub bytes: u64,
}

/// Runs until the sender of steps is gone and all of them are done. Cancel-safe: no (acknowledgements that
/// wait for the disk are then not sent).
pub async fn run<L: Log>(
    log: L,
    bytes: u64,
    mut steps: mpsc::Receiver<Step>,
    health: tokio::sync::watch::Sender<Health>,
    apply: impl AsyncFn(Effects),
) {
    health.send_modify(|h| h.bytes = bytes);
    let mut log = Some(log);
    let mut batch = Vec::new();
    while steps.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let work = std::mem::take(&mut batch);
        let taken = log.take().expect("put back after every batch");
        let written = health.borrow().bytes;
        let done = tokio::task::spawn_blocking(move || store(taken, work, written)).await;
        let Ok((back, committed, now)) = done else {
            // The runtime is shutting down, or the log panicked: without it nothing may be promised.
            tracing::error!("the lease log is gone; no lease is acknowledged any more");
            health.send_modify(|h| {
                h.failure = Some(String::from("the lease log is gone; restart the rack"))
            });
            return;
        };
        log = Some(back);
        health.send_if_modified(|h| std::mem::replace(h, now.clone()) != now);
        // Who has an address is known before the machine can use it.
        for commit in &committed {
            commit.effects.remember();
        }
        for commit in &committed {
            for (transmit, out) in &commit.sends {
                transmit.transmit(out);
            }
        }
        for commit in committed {
            apply(commit.effects).await;
        }
    }
}

/// Makes a batch durable; gives back what may now happen.
fn store<L: Log>(mut log: L, work: Vec<Step>, mut bytes: u64) -> (L, Vec<Commit>, Health) {
    let mut committed = Vec::with_capacity(work.len());
    let mut pending = Vec::new();
    let mut buffer = Vec::new();
    let mut failure = None;
    let mut flush = |log: &mut L,
                     pending: &mut Vec<Commit>,
                     buffer: &mut Vec<u8>,
                     bytes: &mut u64| {
        let result = if buffer.is_empty() {
            Ok(())
        } else {
            log.append(buffer)
        };
        match result {
            Ok(()) => {
                *bytes += buffer.len() as u64;
                committed.append(pending);
                failure = None;
            }
            Err(error) => {
                // The clients ask again; nothing that was not stored is promised to them.
                tracing::error!(%error, leases = pending.len(), "leases cannot be stored; not acknowledged");
                failure = Some(format!(
                    "leases cannot be stored and are not acknowledged: {error}"
                ));
                pending.clear();
            }
        }
        buffer.clear();
    };
    for step in work {
        match step {
            Step::Commit(commit) => {
                for record in &commit.records {
                    LeaseLog::append(record, &mut buffer);
                }
                pending.push(commit);
            }
            Step::Compact(records) => {
                flush(&mut log, &mut pending, &mut buffer, &mut bytes);
                let mut whole = Vec::new();
                for record in &records {
                    LeaseLog::append(record, &mut whole);
                }
                match log.replace(&whole) {
                    Ok(()) => bytes = whole.len() as u64,
                    Err(error) => {
                        tracing::warn!(%error, "the lease log cannot be rewritten; it keeps growing")
                    }
                }
            }
        }
    }
    flush(&mut log, &mut pending, &mut buffer, &mut bytes);
    (log, committed, Health { failure, bytes })
}

/// The lease log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", path.display())]
pub struct LogError {
    what: &'static str,
    path: PathBuf,
    #[source]
    cause: io::Error,
}

/// The lease log as a file.
#[derive(Debug)]
pub struct DiskLog {
    path: PathBuf,
    file: File,
    /// Where the next record goes: the end of the last one that is whole.
    end: u64,
}

/// A log and what was in it.
#[derive(Debug)]
pub struct Opened {
    /// The log, ready for appending.
    pub log: DiskLog,
    /// Its size in bytes.
    pub bytes: u64,
    /// The last record of each address.
    pub records: Vec<LeaseRecord>,
}

impl DiskLog {
    /// Opens the log in a directory, reads it and cuts off a torn end.
    ///
    /// # Errors
    /// [`LogError`] with the file's name.
    pub fn open(directory: &Path) -> Result<Opened, LogError> {
        let path = directory.join(FILE_NAME);
        let failed = |what| {
            let path = path.clone();
            move |cause| LogError { what, path, cause }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("cannot open"))?;
        let size = file.metadata().map_err(failed("cannot read"))?.len();
        if size > LOG_BYTES_MAX {
            return Err(failed("too large to read:")(
                io::ErrorKind::FileTooLarge.into(),
            ));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)
            .map_err(failed("cannot read"))?;
        let replay = LeaseLog::replay(&bytes);
        if replay.damaged_bytes > 0 || replay.unknown_records > 0 {
            tracing::warn!(
                damaged_bytes = replay.damaged_bytes,
                unknown_records = replay.unknown_records,
                "the lease log has parts that cannot be read; their leases are lost"
            );
        }
        if replay.is_torn(&bytes) {
            tracing::info!(
                torn_bytes = bytes.len() - replay.valid_len,
                "the lease log ended within a record"
            );
            file.set_len(replay.valid_len as u64)
                .map_err(failed("cannot cut"))?;
        }
        file.sync_data().map_err(failed("cannot sync"))?;
        // A new file's name is in the directory's data.
        sync_directory(directory).map_err(failed("cannot sync the directory of"))?;
        let end = replay.valid_len as u64;
        Ok(Opened {
            log: Self { path, file, end },
            bytes: end,
            records: replay.records,
        })
    }
}

impl Log for DiskLog {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self
            .file
            .write_all_at(bytes, self.end)
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.end += bytes.len() as u64,
            // Half a record at the end would be stepped over, but not for ever.
            Err(_) => self.file.set_len(self.end).ok().unwrap_or_default(),
        }
        written
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        // From here on the new file is the log, whatever the directory's sync says.
        self.file = file;
        self.end = bytes.len() as u64;
        sync_directory(self.path.parent().unwrap_or(Path::new(".")))
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::Mutex;
    use tokio::sync::watch;
    use wire_dhcp::{Dest, LinkId, Mac, RecordState, SubnetId, Timestamp};

    fn record(n: u8) -> LeaseRecord {
        LeaseRecord {
            state: RecordState::Bound,
            address: Ipv4Addr::new(10, 0, 0, n),
            mac: Mac([2, 0, 0, 0, 0, n]),
            subnet: SubnetId(1),
            start: Timestamp(1_000),
            expires: Timestamp(601_000),
            hostname: None,
        }
    }

    fn append(log: &mut DiskLog, records: &[LeaseRecord]) {
        let mut bytes = Vec::new();
        for record in records {
            LeaseLog::append(record, &mut bytes);
        }
        log.append(&bytes).unwrap();
    }

    #[test]
    fn leases_are_there_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = DiskLog::open(dir.path()).unwrap();
        assert_eq!((opened.bytes, opened.records.len()), (0, 0));
        append(&mut opened.log, &[record(1), record(2)]);
        drop(opened);
        let again = DiskLog::open(dir.path()).unwrap();
        assert_eq!(again.records, [record(1), record(2)]);
    }

    #[test]
    fn a_torn_tail_costs_the_torn_record_only_and_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        append(
            &mut DiskLog::open(dir.path()).unwrap().log,
            &[record(1), record(2)],
        );
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        for cut in 1..whole.len() / 2 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let mut opened = DiskLog::open(dir.path()).unwrap();
            assert_eq!(opened.records, [record(1)], "{cut} bytes missing");
            append(&mut opened.log, &[record(3)]);
            assert_eq!(
                DiskLog::open(dir.path()).unwrap().records,
                [record(1), record(3)],
                "{cut} bytes missing"
            );
        }
    }

    #[test]
    fn compaction_keeps_the_content_and_later_records_follow_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = DiskLog::open(dir.path()).unwrap();
        for _ in 0..50 {
            append(&mut opened.log, &[record(1), record(2)]);
        }
        let before = fs::metadata(dir.path().join(FILE_NAME)).unwrap().len();
        let compact = vec![
            Step::Compact(vec![record(1), record(2)]),
            commit(vec![record(3)], None),
        ];
        let (_, committed, health) = store(opened.log, compact, before);
        assert_eq!(committed.len(), 1);
        let again = DiskLog::open(dir.path()).unwrap();
        assert_eq!(again.records, [record(1), record(2), record(3)]);
        assert_eq!((again.bytes, health.failure), (health.bytes, None));
        assert!(
            again.bytes * 20 < before,
            "{} of {before} bytes are left",
            again.bytes
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no other file is left behind"
        );
    }

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Event {
        Synced(usize),
        Sent(Ipv4Addr),
    }

    type Events = Arc<Mutex<Vec<Event>>>;

    /// A log that says when it synced, and can be made to fail.
    struct Watched {
        events: Events,
        fail: bool,
    }

    impl Log for Watched {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            if self.fail {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.events
                .lock()
                .unwrap()
                .push(Event::Synced(LeaseLog::replay(bytes).records.len()));
            Ok(())
        }

        fn replace(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    struct Sender(Events);

    impl Transmit for Sender {
        fn transmit(&self, out: &Outgoing) {
            self.0
                .lock()
                .unwrap()
                .push(Event::Sent(*out.dest.socket().ip()));
        }
    }

    fn commit(records: Vec<LeaseRecord>, events: Option<&Events>) -> Step {
        let sends = records.iter().zip(events).map(|(record, events)| {
            let dest = Dest::Client(record.address);
            let out = Outgoing {
                link: LinkId(1),
                source: Ipv4Addr::LOCALHOST,
                dest,
                bytes: Vec::new(),
            };
            (
                Arc::new(Sender(Arc::clone(events))) as Arc<dyn Transmit>,
                out,
            )
        });
        let sends = sends.collect();
        Step::Commit(Commit {
            records,
            sends,
            effects: Effects::default(),
        })
    }

    async fn run_all(fail: bool, steps: Vec<Step>, events: &Events) -> Health {
        let (sender, receiver) = mpsc::channel(QUEUE);
        for step in steps {
            sender.try_send(step).ok().unwrap();
        }
        drop(sender);
        let (health, seen) = watch::channel(Health::default());
        run(
            Watched {
                events: Arc::clone(events),
                fail,
            },
            0,
            receiver,
            health,
            async |_| {},
        )
        .await;
        seen.borrow().clone()
    }

    #[tokio::test]
    async fn an_ack_leaves_only_after_its_record_is_on_disk() {
        let events = Events::default();
        let steps = (1..=3)
            .map(|n| commit(vec![record(n)], Some(&events)))
            .collect();
        run_all(false, steps, &events).await;
        let sent = |n| Event::Sent(Ipv4Addr::new(10, 0, 0, n));
        assert_eq!(
            *events.lock().unwrap(),
            [Event::Synced(3), sent(1), sent(2), sent(3)],
            "one sync for the burst"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_stored_is_not_acknowledged() {
        let events = Events::default();
        let health = run_all(true, vec![commit(vec![record(1)], Some(&events))], &events).await;
        assert_eq!(*events.lock().unwrap(), []);
        assert!(health.failure.unwrap().contains("not acknowledged"));
    }
}
