//! Arrays for NumPy: `.npz`, a ZIP archive of `.npy` files, stored without compression.
//!
//! Knows bytes only. The formats: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
//! (version 1.0) and PKWARE's APPNOTE 6.3.

use std::io::{self, Write};

use flate2::Crc;

/// One array of an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    name: String,
    npy: Vec<u8>,
}

impl Array {
    /// Of `f32`, row by row, little-endian; `shape` multiplies to the count of the values.
    pub fn f32(name: &str, shape: &[usize], values: impl Iterator<Item = f32>) -> Self {
        let data = values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        debug_assert_eq!(data.len(), 4 * shape.iter().product::<usize>());
        Self::new(name, "<f4", shape, &data)
    }

    /// Of text: UTF-32, each as long as the longest, filled up with zeros as NumPy does.
    pub fn text<'a>(name: &str, texts: impl Iterator<Item = &'a str> + Clone) -> Self {
        let longest = texts.clone().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
        let (mut count, mut data) = (0, Vec::new());
        for text in texts {
            count += 1;
            let letters = text.chars().map(u32::from).chain(std::iter::repeat(0)).take(longest);
            data.extend(letters.flat_map(u32::to_le_bytes));
        }
        Self::new(name, &format!("<U{longest}"), &[count], &data)
    }

    fn new(name: &str, kind: &str, shape: &[usize], data: &[u8]) -> Self {
        // As Python writes a tuple: one of one has a comma.
        let mut shape: String = shape.iter().map(|side| format!("{side}, ")).collect();
        if shape.matches(", ").count() > 1 {
            shape.truncate(shape.len() - 2);
        }
        let dictionary =
            format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
        // Magic, version and length take 10 bytes, a line break ends the header, 64 divides the whole.
        let padding = 63 - (10 + dictionary.len()) % 64;
        let header = dictionary.len() + padding + 1;
        let mut npy = b"\x93NUMPY\x01\x00".to_vec();
        npy.extend((header as u16).to_le_bytes());
        npy.extend(dictionary.bytes());
        npy.extend(std::iter::repeat_n(b' ', padding));
        npy.push(b'\n');
        npy.extend(data);
        Self { name: format!("{name}.npy"), npy }
    }
}

/// 1 January 1980, the first day of ZIP: the same arrays give the same bytes.
const DATE: u16 = 0x21;
/// What reads the entries: ZIP 2.0.
const READER: u16 = 20;
/// Names are UTF-8.
const FLAGS: u16 = 1 << 11;

/// Writes the archive.
///
/// # Errors
/// An array or archive of 4 GiB or more, for which this format has no room; what `out` says.
pub fn write(arrays: &[Array], out: &mut dyn Write) -> io::Result<()> {
    let too_large = |_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the arrays have 4 GiB or more: too many for .npz",
        )
    };
    let (mut offset, mut directory) = (0u64, Vec::new());
    for Array { name, npy } in arrays {
        let mut crc = Crc::new();
        crc.update(npy);
        let size = u32::try_from(npy.len()).map_err(too_large)?;
        // What the entry and the directory have alike.
        let mut common = Vec::new();
        for number in [READER, FLAGS, 0, 0, DATE] {
            common.extend(number.to_le_bytes());
        }
        for number in [crc.sum(), size, size] {
            common.extend(number.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        out.write_all(b"PK\x03\x04")?;
        out.write_all(&common)?;
        out.write_all(name.as_bytes())?;
        out.write_all(npy)?;
        directory.extend(b"PK\x01\x02");
        directory.extend(READER.to_le_bytes());
        directory.extend(&common);
        // No comment, first disk, no attributes.
        directory.extend([0; 10]);
        directory.extend(u32::try_from(offset).map_err(too_large)?.to_le_bytes());
        directory.extend(name.bytes());
        offset += (4 + common.len() + name.len() + npy.len()) as u64;
    }
    out.write_all(&directory)?;
    let count = arrays.len() as u16;
    out.write_all(b"PK\x05\x06\0\0\0\0")?;
    out.write_all(&[count.to_le_bytes(), count.to_le_bytes()].concat())?;
    out.write_all(&(directory.len() as u32).to_le_bytes())?;
    out.write_all(&u32::try_from(offset).map_err(too_large)?.to_le_bytes())?;
    out.write_all(&[0; 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_numpy_reads() {
        for (shape, said) in [(&[3][..], "(3, )"), (&[2, 1, 3], "(2, 1, 3)"), (&[0, 4], "(0, 4)")] {
            let count = shape.iter().product();
            let Array { npy, .. } = Array::f32("a", shape, std::iter::repeat_n(0.0, count));
            assert_eq!(&npy[..8], b"\x93NUMPY\x01\0");
            let length = usize::from(u16::from_le_bytes([npy[8], npy[9]]));
            assert_eq!((10 + length) % 64, 0);
            assert_eq!(npy.len(), 10 + length + 4 * count);
            let header = std::str::from_utf8(&npy[10..10 + length]).unwrap();
            assert!(header.ends_with(" \n") || header.ends_with("}\n"), "{header:?}");
            let expected = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {said}, }}");
            assert!(header.starts_with(&expected), "{header}");
        }
        let Array { npy, .. } = Array::text("words", ["a", "कुत्ता", ""].into_iter());
        assert!(String::from_utf8_lossy(&npy).contains("'<U6'"));
        assert_eq!(npy.len() % 64, 3 * 6 * 4 % 64);
    }

    /// What `unzip -v` or Python's zipfile checks: sizes, sums and places of the entries.
    #[test]
    fn an_archive_finds_its_entries() {
        let arrays = [
            Array::f32("cross", &[2], [1.0, -2.0].into_iter()),
            Array::text("words", ["dog"].into_iter()),
        ];
        let mut zip = Vec::new();
        write(&arrays, &mut zip).unwrap();
        let number = |at: usize| u32::from_le_bytes(zip[at..at + 4].try_into().unwrap()) as usize;
        let end = zip.len() - 22;
        assert_eq!(&zip[end..end + 4], b"PK\x05\x06");
        let mut entry = number(end + 16);
        assert_eq!(entry + number(end + 12), end);
        for array in &arrays {
            assert_eq!(&zip[entry..entry + 4], b"PK\x01\x02");
            let (size, at) = (number(entry + 24), number(entry + 42));
            let name = entry + 46..entry + 46 + array.name.len();
            assert_eq!(&zip[name.clone()], array.name.as_bytes());
            assert_eq!(&zip[at..at + 4], b"PK\x03\x04");
            let start = at + 30 + array.name.len();
            assert_eq!(&zip[start..start + size], array.npy);
            let mut crc = Crc::new();
            crc.update(&array.npy);
            assert_eq!(
                (number(at + 14), number(entry + 16)),
                (crc.sum() as usize, crc.sum() as usize)
            );
            entry = name.end;
        }
        assert_eq!(entry, end);
    }
}
