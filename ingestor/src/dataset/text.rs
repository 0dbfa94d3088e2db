//! Rows of a text file, by whatever separates the fields.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::DamagedRows;
use crate::Error;

/// The longest line accepted; a file without line ends must not be read into memory whole.
const MAX_LINE_BYTES: u64 = 64 * 1024;
const LOGGED: u64 = 10;

/// Refuses or counts damaged rows.
pub(super) struct Damage {
    policy: DamagedRows,
    pub(super) skipped: u64,
}

impl Damage {
    pub(super) fn new(policy: DamagedRows) -> Self {
        Self { policy, skipped: 0 }
    }

    pub(super) fn row(&mut self, file: &Path, line: u64, detail: String) -> Result<(), Error> {
        let error = Error::Row {
            file: file.to_path_buf(),
            line,
            detail,
        };
        match self.policy {
            DamagedRows::Refuse => Err(error),
            DamagedRows::Skip => {
                self.skipped += 1;
                if self.skipped <= LOGGED {
                    tracing::warn!(%error, "damaged row left out");
                }
                Ok(())
            }
        }
    }
}

/// Calls `each` with the line number and the text of every line that is not blank, LF or CRLF. What `each` says is
/// wrong with the row goes to `damage`.
pub(super) fn lines(
    path: &Path,
    damage: &mut Damage,
    mut each: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), Error> {
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::io(path))?);
    let mut bytes = Vec::new();
    for line in 1_u64.. {
        bytes.clear();
        let mut limited = std::io::Read::take(&mut reader, MAX_LINE_BYTES + 1);
        limited.read_until(b'\n', &mut bytes).map_err(Error::io(path))?;
        if bytes.is_empty() {
            break;
        }
        if bytes.len() as u64 > MAX_LINE_BYTES {
            // Skipping cannot mend this: it is not a text file of rows at all.
            return Err(Error::Row {
                file: path.to_path_buf(),
                line,
                detail: format!("longer than {MAX_LINE_BYTES} bytes"),
            });
        }
        let text = decode(trim_end(&bytes));
        if text.trim().is_empty() {
            continue;
        }
        if let Err(detail) = each(&text) {
            damage.row(path, line, detail)?;
        }
    }
    Ok(())
}

/// The columns of a CSV file, found by name, and a call for each row with their values.
pub(super) fn csv_rows<const N: usize>(
    path: &Path,
    columns: [&str; N],
    damage: &mut Damage,
    mut each: impl FnMut([&str; N]) -> Result<(), String>,
) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .buffer_capacity(1 << 16)
        .from_reader(file);
    let header = reader
        .byte_headers()
        .map_err(|error| unreadable(path, &error))?
        .clone();
    let mut indices = [0; N];
    for (index, column) in indices.iter_mut().zip(columns) {
        *index = header
            .iter()
            .position(|name| name.trim_ascii() == column.as_bytes())
            .ok_or_else(|| Error::Row {
                file: path.to_path_buf(),
                line: 1,
                detail: format!("no column {column:?} in the header"),
            })?;
    }
    let width = header.len();
    let mut record = csv::ByteRecord::new();
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(unreadable(path, &error)),
        }
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != width {
            let detail = format!("{} fields, the header has {width}", record.len());
            damage.row(path, line, detail)?;
            continue;
        }
        let texts = indices.map(|index| std::str::from_utf8(record.get(index).unwrap_or_default()));
        let mut fields = [""; N];
        let mut valid = true;
        for (field, text) in fields.iter_mut().zip(texts) {
            match text {
                Ok(text) => *field = text,
                Err(_) => valid = false,
            }
        }
        let outcome = if valid {
            each(fields)
        } else {
            Err("not UTF-8".to_owned())
        };
        if let Err(detail) = outcome {
            damage.row(path, line, detail)?;
        }
    }
}

fn unreadable(path: &Path, error: &csv::Error) -> Error {
    Error::Row {
        file: path.to_path_buf(),
        line: error.position().map_or(0, csv::Position::line),
        detail: error.to_string(),
    }
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [head @ .., b'\n' | b'\r'] = bytes {
        bytes = head;
    }
    bytes
}

/// The old files are ISO-8859-1, ml-10m's are UTF-8. A text in the former with a letter outside ASCII is practically
/// never valid in the latter, so the bytes themselves decide. Each ISO-8859-1 byte is the code point of its letter.
fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn both_encodings_give_the_same_title() {
        assert_eq!(decode(b"Les Mis\xe9rables"), "Les Misérables");
        assert_eq!(decode("Les Misérables".as_bytes()), "Les Misérables");
    }
}
