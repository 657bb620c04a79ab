//! Whether quotation marks enclose the fields of a table, or are a part of its text.

/// Whether quotes enclose fields between these separators. Between commas and semicolons they do. Between tabs
/// and bars a caption may begin with a quotation: there they do only where each quote that begins a field is
/// closed at the end of one, with every quote between doubled.
pub(crate) fn encloses_fields(separator: u8, table: &[u8]) -> bool {
    if matches!(separator, b',' | b';') {
        return true;
    }
    let mut has_quoted = false;
    for line in table.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut at = 0;
        while at < line.len() {
            if line[at] == b'"' {
                match end_of_quoted(line, at + 1) {
                    Some(end) if line.get(end).is_none_or(|&next| next == separator) => at = end,
                    _ => return false,
                }
                has_quoted = true;
            }
            // To the beginning of the next field.
            match line[at..].iter().position(|&byte| byte == separator) {
                Some(next) => at += next + 1,
                None => break,
            }
        }
    }
    has_quoted
}

/// Behind the quote that closes a field, whose doubled quotes are passed over.
fn end_of_quoted(line: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += line.get(at..)?.iter().position(|&byte| byte == b'"')? + 1;
        if line.get(at) != Some(&b'"') {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_enclose_fields_only_where_all_of_them_do() {
        let encloses = |text: &str| encloses_fields(b'\t', text.as_bytes());
        assert!(encloses("a.jpg\t\"a \"\"big\"\" dog\"\nb.jpg\ta cat\r\n"));
        assert!(encloses("\"image\"\t\"caption\"\r\n\"a.jpg\"\t\"x\ty\"\r\n"));
        assert!(!encloses("a.jpg\ta dog\n"));
        assert!(!encloses("a.jpg\t\"Hello\" says a sign\n"));
        assert!(!encloses("a.jpg\t\"Hello\"\nb.jpg\t\"never closed\n"));
        assert!(encloses_fields(b'|', b"a.jpg|\"this|that\"\n"));
        assert!(!encloses_fields(b'|', b"a.jpg| \"this\" .\n"));
        assert!(encloses_fields(b',', b"a.jpg,a dog\n"));
    }
}
