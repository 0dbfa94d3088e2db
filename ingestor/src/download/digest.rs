//! The digest published beside an archive. MD5 finds damage in transit, no more; the connection's TLS is what keeps
//! others out.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use md5::{Digest, Md5};

use crate::Error;

/// The digest in `<hex>  name.zip` or `MD5 (name.zip) = <hex>`.
pub(super) fn parse(text: &str, url: &str) -> Result<String, Error> {
    let is_digest = |word: &&str| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
    text.split_whitespace()
        .find(is_digest)
        .map(str::to_ascii_lowercase)
        .ok_or_else(|| Error::DigestFile {
            url: url.to_owned(),
            text: text.chars().take(80).collect(),
        })
}

/// Compares a file with its digest, if there is one; deletes the file if it differs.
pub(super) fn check(file: &Path, expected: Option<&str>, url: &str) -> Result<(), Error> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let found = of(file)?;
    if found == expected {
        return Ok(());
    }
    fs::remove_file(file).map_err(Error::io(file))?;
    Err(Error::Digest {
        url: url.to_owned(),
        expected: expected.to_owned(),
        found,
    })
}

pub(super) fn of(path: &Path) -> Result<String, Error> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hasher = Md5::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer).map_err(Error::io(path))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let mut hex = String::with_capacity(32);
    for byte in hasher.finalize() {
        // Writing to a string cannot fail.
        write!(hex, "{byte:02x}").ok();
    }
    Ok(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_digest_files_are_read_and_others_refused() {
        let hex = "0e33842e24a9c977be4e0107933c0723";
        assert_eq!(parse(&format!("{hex}  ml-100k.zip\n"), "u").unwrap(), hex);
        let bsd = format!("MD5 (ml-100k.zip) = {}", hex.to_uppercase());
        assert_eq!(parse(&bsd, "u").unwrap(), hex);
        let error = parse("<html>not here</html>", "u").unwrap_err();
        assert!(matches!(error, Error::DigestFile { .. }));
    }

    #[test]
    fn the_digest_is_md5() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "abc").unwrap();
        // RFC 1321, appendix A.5.
        assert_eq!(of(&file).unwrap(), "900150983cd24fb0d6963f7d28e17f72");
    }
}
