//! When the lines of a log were written. The log itself is what the process and its children have written and nothing else, so
//! the times stand in a file beside it, of marks: until then it had become that long.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Bytes of a mark: the length of the log, and microseconds since the epoch, both little-endian.
const SIZE: usize = 16;

/// Marks being written.
pub struct Writer {
    file: File,
    /// Up to where the log is marked.
    length: u64,
}

impl Writer {
    /// Goes on with the marks at `path` of a log that is `length` bytes long: what is not marked was written at `changed`, or before.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn open(path: &Path, length: u64, changed: SystemTime) -> io::Result<Writer> {
        let marked = Marks::read(path).end();
        let file = File::options().append(true).create(true).mode(0o600).open(path)?;
        let mut writer = Writer { file, length: marked };
        if length > marked {
            writer.mark_at(length, changed)?;
        }
        Ok(writer)
    }

    /// The log is that long now.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn mark(&mut self, length: u64) -> io::Result<()> {
        match length > self.length {
            true => self.mark_at(length, SystemTime::now()),
            false => Ok(()),
        }
    }

    fn mark_at(&mut self, length: u64, time: SystemTime) -> io::Result<()> {
        self.length = length;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut mark = [0; SIZE];
        mark[..8].copy_from_slice(&length.to_le_bytes());
        mark[8..].copy_from_slice(&(since.as_micros() as u64).to_le_bytes());
        self.file.write_all(&mark)
    }

    /// The log has been moved but for its first `cut` bytes, and begins anew: so do the marks, and those at `path` go to `old`.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn turn(&mut self, path: &Path, old: &Path, cut: u64) -> io::Result<()> {
        let marks = Marks::read(path).0;
        let moved = marks.into_iter().filter(|(end, _)| *end > cut);
        let moved: Vec<u8> = moved
            .flat_map(|(end, time)| [(end - cut).to_le_bytes(), time.to_le_bytes()].concat())
            .collect();
        self.length = 0;
        self.file.set_len(0)?;
        fs::write(old, moved)
    }
}

/// The marks of a log, in its order.
#[derive(Default)]
pub struct Marks(Vec<(u64, u64)>);

impl Marks {
    /// Those of a file; none where there is none.
    pub fn read(path: &Path) -> Marks {
        let bytes = fs::read(path).unwrap_or_default();
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        Marks(
            bytes.chunks_exact(SIZE).map(|mark| (number(&mark[..8]), number(&mark[8..]))).collect(),
        )
    }

    /// When the byte at `position` was written; `None` when that is not marked yet.
    pub fn at(&self, position: u64) -> Option<SystemTime> {
        let next = self.0.partition_point(|(end, _)| *end <= position);
        let (_, time) = self.0.get(next)?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_micros(*time))
    }

    fn end(&self) -> u64 {
        self.0.last().map_or(0, |(end, _)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn each_byte_has_the_time_of_the_mark_behind_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [path, old] = ["times", "old"].map(|name| directory.path().join(name));
        let mut writer = Writer::open(&path, 0, at(1)).expect("opened");
        for (length, time) in [(10, 100), (30, 200), (70, 300)] {
            writer.mark_at(length, at(time)).expect("written");
        }
        let times = |marks: &Marks, places: &[u64]| -> Vec<Option<SystemTime>> {
            places.iter().map(|place| marks.at(*place)).collect()
        };
        let marks = Marks::read(&path);
        let expected = [Some(at(100)), Some(at(100)), Some(at(200)), Some(at(300)), None];
        assert_eq!(times(&marks, &[0, 9, 10, 69, 70]), expected);
        // What a process that died has not marked is marked by the next.
        drop(writer);
        let mut writer = Writer::open(&path, 80, at(400)).expect("opened");
        assert_eq!(times(&Marks::read(&path), &[69, 75, 80]), [Some(at(300)), Some(at(400)), None]);
        writer.turn(&path, &old, 20).expect("turned");
        let expected = [Some(at(200)), Some(at(300)), Some(at(400)), None];
        assert_eq!(times(&Marks::read(&old), &[0, 10, 50, 60]), expected);
        assert_eq!(Marks::read(&path).at(0), None);
        writer.mark_at(5, at(500)).expect("written");
        assert_eq!(Marks::read(&path).at(0), Some(at(500)));
    }
}
