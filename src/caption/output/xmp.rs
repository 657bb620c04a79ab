//! The description in an XMP packet (ISO 16684-1, `dc:description`): what it says in a language, and a packet in
//! which it says something else, whose every other byte is as it was. Knows text only.

use std::ops::Range;

use quick_xml::NsReader;
use quick_xml::escape::{escape, resolve_predefined_entity, unescape};
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, QName, ResolveResult};

const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
const DC: &str = "http://purl.org/dc/elements/1.1/";

/// The language of the text that is for everybody.
pub const DEFAULT_LANGUAGE: &str = "x-default";

/// A packet without a property.
const EMPTY: &str = "<?xpacket begin=\"\u{FEFF}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>
<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">
 <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">
  <rdf:Description rdf:about=\"\" xmlns:dc=\"http://purl.org/dc/elements/1.1/\"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end=\"w\"?>";

/// Why a packet is not touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum XmpError {
    /// It cannot be parsed.
    #[error("its XMP is damaged at byte {at}: {detail}")]
    Damaged {
        /// Where.
        at: u64,
        /// What the parser says.
        detail: String,
    },
    /// It is no UTF-8.
    #[error("its XMP is not in UTF-8; expected that (exiftool rewrites it so)")]
    Encoding,
    /// XML of something else.
    #[error("no XMP: there is no rdf:RDF in it")]
    Foreign,
}

/// The description that a packet has in a language; of no other language's than asked for, but that where the
/// text for everybody is asked for, and there is none, the first one counts.
pub(crate) fn description(packet: &[u8], language: &str) -> Result<Option<String>, XmpError> {
    let Some(packet) = text_of(packet)? else { return Ok(None) };
    let found = scan(packet)?;
    let wanted = found.items.iter().find(|item| item.is_in(language));
    let item = match wanted {
        None if language == DEFAULT_LANGUAGE => found.items.first(),
        wanted => wanted,
    };
    Ok(item.map(|item| item.text.trim().to_owned()).filter(|text| !text.is_empty()))
}

/// The packet with another description in a language; without a packet a new one. Descriptions in other
/// languages and all other properties stay.
pub(crate) fn with_description(
    packet: Option<&[u8]>,
    language: &str,
    text: &str,
) -> Result<String, XmpError> {
    let packet = match packet {
        Some(packet) => text_of(packet)?.unwrap_or(EMPTY),
        None => EMPTY,
    };
    let found = scan(packet)?;
    let mut edits = found.edits(language, &escaped(text))?;
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let mut written = String::with_capacity(packet.len() + text.len() + 512);
    let mut at = 0;
    for (range, new) in edits {
        written.push_str(&packet[at..range.start]);
        written.push_str(&new);
        at = range.end;
    }
    written.push_str(&packet[at..]);
    // What was not understood is not written.
    match description(written.as_bytes(), language)? {
        Some(now) if now == readable(text).trim() => Ok(written),
        _ => Err(XmpError::Damaged { at: 0, detail: "its description cannot be replaced".into() }),
    }
}

/// `None` of what holds nothing.
fn text_of(packet: &[u8]) -> Result<Option<&str>, XmpError> {
    // Photos have packets that end with NULs.
    let end = packet.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let text = std::str::from_utf8(&packet[..end]).map_err(|_| XmpError::Encoding)?;
    if text.contains('\0') {
        return Err(XmpError::Encoding);
    }
    Ok(Some(text).filter(|text| !text.trim_start_matches('\u{FEFF}').trim().is_empty()))
}

/// Text without what XML cannot say.
fn readable(text: &str) -> String {
    let is_said = |c: &char| !c.is_control() || ['\t', '\n'].contains(c);
    text.chars().filter(is_said).filter(|c| !['\u{FFFE}', '\u{FFFF}'].contains(c)).collect()
}

fn escaped(text: &str) -> String {
    escape(readable(text)).into_owned()
}

/// A description in a language.
#[derive(Debug)]
struct Item {
    language: String,
    text: String,
    range: Range<usize>,
}

impl Item {
    fn is_in(&self, language: &str) -> bool {
        self.language.eq_ignore_ascii_case(language)
    }
}

/// Where something can be added to an element.
#[derive(Debug, Clone)]
enum Site {
    /// Behind its start tag, or before its end tag.
    At(usize),
    /// In place of the `/>` of an element of this name.
    Empty(Range<usize>, String),
}

/// What a packet says of the description, and where one goes.
#[derive(Debug, Default)]
struct Found {
    /// Where properties go: the first description of the resource.
    resource: Option<Site>,
    /// Where such a one goes: behind the start tag of `rdf:RDF`.
    root: Option<Site>,
    /// Prefixes that have their usual meaning where properties go.
    has_rdf: bool,
    has_dc: bool,
    /// The whole element `dc:description`.
    element: Option<Range<usize>>,
    /// Behind the start tag of its list, and before its end tag.
    list: Option<(Site, usize)>,
    /// `rdf:li` as the list calls it.
    item_name: String,
    items: Vec<Item>,
    /// The description as an attribute, with the blank before it.
    attribute: Option<Range<usize>>,
}

impl Found {
    /// What to replace by what.
    fn edits(&self, language: &str, text: &str) -> Result<Vec<(Range<usize>, String)>, XmpError> {
        let is_default = language.eq_ignore_ascii_case(DEFAULT_LANGUAGE);
        let has_default = self.items.iter().any(|item| item.is_in(DEFAULT_LANGUAGE));
        let language = escape(language);
        let item =
            |name: &str, language: &str| format!("<{name} xml:lang=\"{language}\">{text}</{name}>");
        if let (Some((start, end)), None) = (&self.list, &self.attribute) {
            let name = &self.item_name;
            let mut edits = Vec::new();
            match self.items.iter().find(|item| item.is_in(&language)) {
                Some(old) => edits.push((old.range.clone(), item(name, &language))),
                None if is_default => edits.push(start.insert(&item(name, DEFAULT_LANGUAGE))),
                None if self.items.is_empty() => {}
                None => edits.push((*end..*end, item(name, &language))),
            }
            // An alternative begins with the text for everybody.
            if !is_default && !has_default {
                let mut first = item(name, DEFAULT_LANGUAGE);
                if self.items.is_empty() {
                    first.push_str(&item(name, &language));
                }
                edits.push(start.insert(&first));
            }
            return Ok(edits);
        }
        let mut items = String::new();
        // What was a text without a language was for everybody.
        let kept = self.items.first().filter(|_| !is_default);
        let default = kept.map_or_else(|| text.to_owned(), |kept| escaped(&kept.text));
        items.push_str(&format!("<rdf:li xml:lang=\"{DEFAULT_LANGUAGE}\">{default}</rdf:li>"));
        if !is_default {
            items.push_str(&item("rdf:li", &language));
        }
        let dc = if self.has_dc { String::new() } else { format!(" xmlns:dc=\"{DC}\"") };
        let rdf = if self.has_rdf { String::new() } else { format!(" xmlns:rdf=\"{RDF}\"") };
        let element =
            format!("<dc:description{dc}{rdf}><rdf:Alt>{items}</rdf:Alt></dc:description>");
        let mut edits = Vec::new();
        if let Some(attribute) = &self.attribute {
            edits.push((attribute.clone(), String::new()));
        }
        match (&self.element, &self.resource, &self.root) {
            (Some(old), ..) => edits.push((old.clone(), element)),
            (None, Some(site), _) => edits.push(site.insert(&element)),
            (None, None, Some(site)) => {
                // Neither prefix is known to be bound there.
                let whole = format!(
                    "<rdf:Description xmlns:rdf=\"{RDF}\" xmlns:dc=\"{DC}\" rdf:about=\"\">{element}\
                     </rdf:Description>"
                );
                edits.push(site.insert(&whole));
            }
            (None, None, None) => return Err(XmpError::Foreign),
        }
        Ok(edits)
    }
}

impl Site {
    fn insert(&self, new: &str) -> (Range<usize>, String) {
        match self {
            Self::At(at) => (*at..*at, new.to_owned()),
            Self::Empty(slash, name) => (slash.clone(), format!(">{new}</{name}>")),
        }
    }
}

/// What an element is, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Root,
    Resource,
    Description,
    List,
    Item,
    Other,
}

/// One element that is open.
struct Open {
    kind: Kind,
    start: usize,
    language: String,
    text: String,
}

fn scan(packet: &str) -> Result<Found, XmpError> {
    let mut reader = NsReader::from_str(packet);
    let (mut found, mut stack) = (Found::default(), Vec::<Open>::new());
    loop {
        let start = position(&reader);
        let event = reader.read_event().map_err(|error| XmpError::Damaged {
            at: reader.error_position(),
            detail: error.to_string(),
        })?;
        let range = start..position(&reader);
        match event {
            Event::Start(tag) => {
                let kind = kind_of(&reader, &tag, stack.last().map(|open| open.kind));
                note_start(&mut found, &reader, packet, (kind, &tag), &range, false);
                let language = language_of(&tag);
                stack.push(Open { kind, start, language, text: String::new() });
            }
            Event::Empty(tag) => {
                let kind = kind_of(&reader, &tag, stack.last().map(|open| open.kind));
                note_start(&mut found, &reader, packet, (kind, &tag), &range, true);
                let language = language_of(&tag);
                note_end(&mut found, Open { kind, start, language, text: String::new() }, &range);
            }
            Event::End(_) => {
                if let Some(open) = stack.pop() {
                    note_end(&mut found, open, &range);
                }
            }
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => {
                let text = match &event {
                    Event::Text(text) => text.decode().map(|text| text.into_owned()),
                    Event::CData(text) => text.decode().map(|text| text.into_owned()),
                    Event::GeneralRef(name) => Ok(match name.resolve_char_ref() {
                        Ok(Some(c)) => c.to_string(),
                        _ => name
                            .decode()
                            .ok()
                            .and_then(|name| resolve_predefined_entity(&name))
                            .unwrap_or_default()
                            .to_owned(),
                    }),
                    _ => Ok(String::new()),
                };
                if let Some(open) = stack.last_mut() {
                    open.text.push_str(&text.map_err(|_| XmpError::Encoding)?);
                }
            }
            Event::Eof if stack.is_empty() => break,
            Event::Eof => {
                let detail = "it ends within an element".to_owned();
                return Err(XmpError::Damaged { at: packet.len() as u64, detail });
            }
            _ => {}
        }
    }
    if found.root.is_none() { Err(XmpError::Foreign) } else { Ok(found) }
}

fn position(reader: &NsReader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

fn kind_of(reader: &NsReader<&[u8]>, tag: &BytesStart<'_>, parent: Option<Kind>) -> Kind {
    let (namespace, local) = reader.resolver().resolve_element(tag.name());
    let is = |uri: &str| namespace == ResolveResult::Bound(Namespace(uri.as_bytes()));
    match (local.as_ref(), parent) {
        (b"RDF", _) if is(RDF) => Kind::Root,
        (b"Description", Some(Kind::Root)) if is(RDF) => Kind::Resource,
        (b"description", Some(Kind::Resource)) if is(DC) => Kind::Description,
        (b"Alt" | b"Bag" | b"Seq", Some(Kind::Description)) if is(RDF) => Kind::List,
        (b"li", Some(Kind::List)) if is(RDF) => Kind::Item,
        _ => Kind::Other,
    }
}

fn language_of(tag: &BytesStart<'_>) -> String {
    let language = tag.try_get_attribute("xml:lang").ok().flatten();
    let language = language.map(|found| String::from_utf8_lossy(&found.value).into_owned());
    language.unwrap_or_else(|| DEFAULT_LANGUAGE.to_owned())
}

fn note_start(
    found: &mut Found,
    reader: &NsReader<&[u8]>,
    packet: &str,
    (kind, tag): (Kind, &BytesStart<'_>),
    range: &Range<usize>,
    is_empty: bool,
) {
    let name = String::from_utf8_lossy(tag.name().into_inner()).into_owned();
    // Of `<a b="c" />` the last two bytes.
    let site = match is_empty {
        true => Site::Empty(range.end.saturating_sub(2)..range.end, name.clone()),
        false => Site::At(range.end),
    };
    match kind {
        Kind::Root if found.root.is_none() => found.root = Some(site),
        Kind::Resource => {
            let means = |name: &[u8], uri: &str| {
                let (namespace, _) = reader.resolver().resolve_element(QName(name));
                namespace == ResolveResult::Bound(Namespace(uri.as_bytes()))
            };
            if found.resource.is_none() {
                found.resource = Some(site);
                found.has_rdf = means(b"rdf:li", RDF);
                found.has_dc = means(b"dc:description", DC);
            }
            for (key, value, place) in attributes(packet, range) {
                let (namespace, local) = reader.resolver().resolve_attribute(QName(key.as_bytes()));
                let is_dc = namespace == ResolveResult::Bound(Namespace(DC.as_bytes()));
                if is_dc && local.as_ref() == b"description" && found.attribute.is_none() {
                    let text = unescape(value).map_or_else(|_| value.into(), |it| it.into_owned());
                    let language = DEFAULT_LANGUAGE.to_owned();
                    found.items.push(Item { language, text, range: place.clone() });
                    found.attribute = Some(place);
                }
            }
        }
        Kind::List if found.list.is_none() => {
            found.list = Some((site, range.end));
            let prefix = name.split_once(':').map(|(prefix, _)| format!("{prefix}:"));
            found.item_name = format!("{}li", prefix.unwrap_or_default());
        }
        _ => {}
    }
}

fn note_end(found: &mut Found, open: Open, range: &Range<usize>) {
    match open.kind {
        Kind::Item if found.element.is_none() => {
            let whole = open.start..range.end;
            found.items.push(Item { language: open.language, text: open.text, range: whole });
        }
        Kind::List if found.element.is_none() => {
            if let Some((_, end)) = &mut found.list {
                *end = range.start;
            }
        }
        Kind::Description if found.element.is_none() => {
            found.element = Some(open.start..range.end);
            if found.list.is_none() && !open.text.trim().is_empty() {
                let (language, text) = (open.language, open.text);
                found.items.push(Item { language, text, range: open.start..range.end });
            }
        }
        _ => {}
    }
}

/// The attributes of the tag at `range`: key, value as it is written, and the place of both with the blanks
/// before them.
fn attributes<'a>(packet: &'a str, range: &Range<usize>) -> Vec<(&'a str, &'a str, Range<usize>)> {
    let tag = &packet[range.clone()];
    let is_blank = |c: char| c.is_ascii_whitespace();
    let mut at = tag.find(is_blank).unwrap_or(tag.len());
    let mut all = Vec::new();
    loop {
        let rest = &tag[at..];
        let key_at = at + (rest.len() - rest.trim_start_matches(is_blank).len());
        let Some(equals) = tag[key_at..].find('=') else { return all };
        let key = tag[key_at..key_at + equals].trim_end_matches(is_blank);
        let after = &tag[key_at + equals + 1..];
        let value_at = key_at + equals + 1 + (after.len() - after.trim_start().len());
        let Some(quote) = tag[value_at..].chars().next().filter(|c| ['"', '\''].contains(c)) else {
            return all;
        };
        let Some(length) = tag[value_at + 1..].find(quote) else { return all };
        let end = value_at + 1 + length + 1;
        let place = range.start + at..range.start + end;
        all.push((key, &tag[value_at + 1..end - 1], place));
        at = end;
    }
}

#[cfg(test)]
#[path = "xmp_tests.rs"]
mod tests;
