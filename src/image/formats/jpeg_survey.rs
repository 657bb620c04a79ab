//! What a JPEG file holds, told without decoding a pixel: its frame, its markers, and whether every
//! block of every scan is there. Decoders fill what is missing with grey and say nothing, so the
//! Huffman codes are read once more here, for their lengths alone.

use super::Failure;
use super::jpeg_codes::{Codes, Table};

/// A colour component of the frame.
#[derive(Clone, Debug)]
pub(super) struct Component {
    id: u8,
    /// Horizontal and vertical sampling, 1 to 4.
    pub(super) sampling: (u32, u32),
    /// For each coefficient the bits still missing; `None` where nothing came yet.
    missing_bits: [Option<u8>; 64],
    /// Of each block, which coefficients are not zero: progressive refinement depends on it.
    nonzero: Vec<u64>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Survey<'a> {
    /// The frame's marker, 0xC0 to 0xCF.
    pub(super) process: u8,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) components: Vec<Component>,
    /// The colour transform that Adobe's marker names.
    pub(super) adobe: Option<u8>,
    pub(super) exif: Option<&'a [u8]>,
    pub(super) xmp: Option<&'a [u8]>,
    /// Whether each scan of a sequential image holds all components.
    pub(super) interleaved: bool,
    /// Where the image ends: behind its end marker, or where that is missing, behind its last scan.
    pub(super) end: usize,
    pub(super) has_end_marker: bool,
}

impl Survey<'_> {
    pub(super) fn is_progressive(&self) -> bool {
        self.process == 0xC2
    }

    fn largest_sampling(&self) -> (u32, u32) {
        let most = |side: fn(&Component) -> u32| self.components.iter().map(side).max();
        (
            most(|component| component.sampling.0).unwrap_or(1),
            most(|component| component.sampling.1).unwrap_or(1),
        )
    }

    /// MCUs across and down of a scan of several components.
    fn mcus(&self) -> (u32, u32) {
        let (h, v) = self.largest_sampling();
        (self.width.div_ceil(8 * h), self.height.div_ceil(8 * v))
    }

    /// Whether every coefficient has all its bits: nothing can come any more.
    fn is_final(&self) -> bool {
        let mut bits = self.components.iter().flat_map(|component| &component.missing_bits);
        !self.components.is_empty() && bits.all(|bits| *bits == Some(0))
    }

    /// Whether there is a pixel for every place.
    fn is_covered(&self) -> bool {
        let mut components = self.components.iter();
        !self.components.is_empty() && components.all(|found| found.missing_bits[0].is_some())
    }
}

/// Only the markers before the first scan.
pub(super) fn survey_header(bytes: &[u8]) -> Result<Survey<'_>, Failure> {
    Walk::new(bytes).run(true)
}

/// Everything.
pub(super) fn survey(bytes: &[u8]) -> Result<Survey<'_>, Failure> {
    Walk::new(bytes).run(false)
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    found: Survey<'a>,
    tables: [[Option<Box<Table>>; 4]; 2],
    restart_interval: u32,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let found = Survey {
            process: 0,
            width: 0,
            height: 0,
            components: Vec::new(),
            adobe: None,
            exif: None,
            xmp: None,
            interleaved: true,
            end: 0,
            has_end_marker: false,
        };
        Self { bytes, at: 2, found, tables: Default::default(), restart_interval: 0 }
    }

    fn run(mut self, header_only: bool) -> Result<Survey<'a>, Failure> {
        loop {
            let Some(marker) = self.next_marker() else { return self.finish() };
            match marker {
                0xD9 => {
                    self.found.end = self.at;
                    self.found.has_end_marker = true;
                    return self.finish();
                }
                0xD0..=0xD8 | 0x01 => continue,
                _ => {}
            }
            let Some(segment) = self.segment() else { return self.finish() };
            match marker {
                0xC4 => self.read_tables(segment)?,
                0xC0..=0xCF if marker != 0xC8 && marker != 0xCC => {
                    self.read_frame(marker, segment)?;
                }
                0xDD if segment.len() >= 2 => {
                    self.restart_interval = u32::from(u16::from_be_bytes([segment[0], segment[1]]));
                }
                0xE1 => self.read_app1(segment),
                0xEE if segment.len() >= 12 && segment.starts_with(b"Adobe") => {
                    self.found.adobe = Some(segment[11]);
                }
                0xDA => {
                    if header_only || !self.can_be_walked() {
                        // Of processes that are refused anyway no scan need be read.
                        self.found.end = self.bytes.len();
                        self.found.has_end_marker = true;
                        return Ok(self.found);
                    }
                    self.read_scan(segment)?;
                    self.found.end = self.at;
                    if self.found.is_final() {
                        self.found.has_end_marker = self.next_marker() == Some(0xD9);
                        if self.found.has_end_marker {
                            self.found.end = self.at;
                        }
                        return self.finish();
                    }
                }
                _ => {}
            }
        }
    }

    fn can_be_walked(&self) -> bool {
        matches!(self.found.process, 0xC0..=0xC2)
    }

    fn finish(self) -> Result<Survey<'a>, Failure> {
        let found = self.found;
        let length = self.bytes.len();
        if found.components.is_empty() {
            return Err(Failure::Truncated(format!("no picture in its {length} bytes")));
        }
        if !found.is_covered() {
            return Err(Failure::Truncated(format!("not every colour is in its {length} bytes")));
        }
        if !found.has_end_marker && !found.is_final() {
            let reason = format!("no end-of-image marker in its {length} bytes, and scans missing");
            return Err(Failure::Truncated(reason));
        }
        Ok(found)
    }

    /// The next marker; any bytes may stand before it, as decoders allow.
    fn next_marker(&mut self) -> Option<u8> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += rest.iter().position(|&byte| byte == 0xFF)?;
            let rest = &self.bytes[self.at..];
            // Any number of 0xFF may stand before a marker.
            let fill = rest.iter().position(|&byte| byte != 0xFF)?;
            self.at += fill + 1;
            if rest[fill] != 0 {
                return Some(rest[fill]);
            }
        }
    }

    fn segment(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk::<2>()?));
        let segment = rest.get(2..length)?;
        self.at += length;
        Some(segment)
    }

    fn read_app1(&mut self, segment: &'a [u8]) {
        const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
        if segment.starts_with(b"Exif\0") {
            self.found.exif.get_or_insert(segment);
        } else if let Some(packet) = segment.strip_prefix(XMP) {
            self.found.xmp.get_or_insert(packet);
        }
    }

    fn read_frame(&mut self, marker: u8, segment: &[u8]) -> Result<(), Failure> {
        if !self.found.components.is_empty() {
            return Err(Failure::Unsupported("hierarchical JPEG (several frames)".into()));
        }
        let short = || Failure::Damaged("its frame header is too short".into());
        let header = segment.first_chunk::<6>().ok_or_else(short)?;
        let precision = header[0];
        let [high, low] = [header[1], header[2]];
        self.found.process = marker;
        self.found.height = u32::from(u16::from_be_bytes([high, low]));
        self.found.width = u32::from(u16::from_be_bytes([header[3], header[4]]));
        match marker {
            0xC0..=0xC2 if precision == 8 => {}
            0xC0..=0xC2 => {
                return Err(Failure::Unsupported(format!("JPEG of {precision} bits a sample")));
            }
            0xC3 => return Err(Failure::Unsupported("lossless JPEG".into())),
            0xC9 | 0xCA => return Err(Failure::Unsupported("JPEG with arithmetic coding".into())),
            _ => return Err(Failure::Unsupported("hierarchical or lossless JPEG".into())),
        }
        if self.found.height == 0 && self.found.width > 0 {
            let what = "JPEG that gives its height behind its pixels (DNL)";
            return Err(Failure::Unsupported(what.into()));
        }
        let of_components = segment.get(6..6 + 3 * usize::from(header[5])).ok_or_else(short)?;
        for entry in of_components.as_chunks::<3>().0 {
            let sampling = (u32::from(entry[1] >> 4), u32::from(entry[1] & 15));
            if !(1..=4).contains(&sampling.0) || !(1..=4).contains(&sampling.1) {
                return Err(Failure::Damaged(format!("sampling {sampling:?} of a colour")));
            }
            self.found.components.push(Component {
                id: entry[0],
                sampling,
                missing_bits: [None; 64],
                nonzero: Vec::new(),
            });
        }
        if !matches!(self.found.components.len(), 1 | 3 | 4) {
            let count = self.found.components.len();
            return Err(Failure::Unsupported(format!("JPEG of {count} colour components")));
        }
        Ok(())
    }

    fn read_tables(&mut self, mut segment: &[u8]) -> Result<(), Failure> {
        let damaged = || Failure::Damaged("a damaged Huffman table".into());
        while let Some((head, rest)) = segment.split_first_chunk::<17>() {
            let (class, slot) = (usize::from(head[0] >> 4), usize::from(head[0] & 15));
            let lengths = head.last_chunk::<16>().expect("16 of 17");
            let count: usize = lengths.iter().map(|&count| usize::from(count)).sum();
            let symbols = rest.get(..count).ok_or_else(damaged)?;
            let table = Table::new(lengths, symbols).ok_or_else(damaged)?;
            let place = self.tables.get_mut(class).and_then(|tables| tables.get_mut(slot));
            *place.ok_or_else(damaged)? = Some(Box::new(table));
            segment = &rest[count..];
        }
        Ok(())
    }

    /// Reads the codes of a scan; afterwards `at` stands behind its last byte.
    fn read_scan(&mut self, header: &[u8]) -> Result<(), Failure> {
        let scan = Scan::new(header, &self.found)?;
        let found = &mut self.found;
        if scan.members.len() < found.components.len() {
            found.interleaved = false;
        }
        let (mcus_across, mcus_down) = found.mcus();
        let largest = found.largest_sampling();
        if found.is_progressive() {
            for component in &mut found.components {
                let (h, v) = component.sampling;
                let blocks = (mcus_across * h) as usize * (mcus_down * v) as usize;
                component.nonzero.resize(blocks, 0);
            }
        }
        // Across and down: MCUs of several components, or the blocks of one.
        let units = match scan.members[..] {
            [Member { component, .. }] => {
                let (h, v) = found.components[component].sampling;
                let blocks =
                    |side: u32, own: u32, most: u32| (side * own).div_ceil(most).div_ceil(8);
                (blocks(found.width, h, largest.0), blocks(found.height, v, largest.1))
            }
            _ => (mcus_across, mcus_down),
        };
        let mut codes = Codes::new(self.bytes, self.at);
        let mut end_of_band = 0;
        let total = units.0 * units.1;
        for unit in 0..total {
            if self.restart_interval > 0 && unit > 0 && unit % self.restart_interval == 0 {
                if !codes.restart() {
                    return Err(missing(unit, total, self.bytes.len()));
                }
                end_of_band = 0;
            }
            let (x, y) = (unit % units.0, unit / units.0);
            for member in &scan.members {
                let component = &mut found.components[member.component];
                let (h, v) = match scan.members.len() {
                    1 => (1, 1),
                    _ => component.sampling,
                };
                let across = mcus_across * component.sampling.0;
                for block in 0..h * v {
                    let (column, row) = (x * h + block % h, y * v + block / h);
                    let index = row as usize * across as usize + column as usize;
                    let mut none = 0;
                    let nonzero = component.nonzero.get_mut(index).unwrap_or(&mut none);
                    let tables = &self.tables;
                    scan.read_block(&mut codes, tables, member, nonzero, &mut end_of_band)?;
                }
            }
            if codes.is_overrun() {
                return Err(missing(unit, total, self.bytes.len()));
            }
        }
        for member in &scan.members {
            let bits = &mut found.components[member.component].missing_bits;
            bits[scan.band.0..=scan.band.1].fill(Some(scan.low));
        }
        self.at = codes.end();
        Ok(())
    }
}

fn missing(unit: u32, total: u32, length: usize) -> Failure {
    let percent = u64::from(unit) * 100 / u64::from(total.max(1));
    Failure::Truncated(format!("a scan stops after {percent} % of it, in a file of {length} bytes"))
}

struct Member {
    component: usize,
    dc: usize,
    ac: usize,
}

struct Scan {
    members: Vec<Member>,
    /// First and last coefficient.
    band: (usize, usize),
    /// The bit position that an earlier scan reached, 0 if there was none, and that this one reaches.
    high: u8,
    low: u8,
    progressive: bool,
}

impl Scan {
    fn new(header: &[u8], found: &Survey<'_>) -> Result<Self, Failure> {
        let damaged = || Failure::Damaged("a damaged scan header".into());
        let (&count, rest) = header.split_first().ok_or_else(damaged)?;
        let (entries, parameters) =
            rest.split_at_checked(2 * usize::from(count)).ok_or_else(damaged)?;
        let mut members = Vec::new();
        for &[id, tables] in entries.as_chunks::<2>().0 {
            let component = found.components.iter().position(|component| component.id == id);
            members.push(Member {
                component: component.ok_or_else(damaged)?,
                dc: usize::from(tables >> 4 & 3),
                ac: usize::from(tables & 3),
            });
        }
        if !(1..=4).contains(&members.len()) {
            return Err(damaged());
        }
        let progressive = found.is_progressive();
        let (mut band, mut bits) = ((0, 63), 0);
        if progressive {
            let parameters = parameters.first_chunk::<3>().ok_or_else(damaged)?;
            band = (usize::from(parameters[0]), usize::from(parameters[1]));
            bits = parameters[2];
        }
        let has_ac = progressive && band.0 > 0;
        if band.0 > band.1 || band.1 > 63 || (has_ac && members.len() > 1) {
            return Err(damaged());
        }
        Ok(Self { members, band, high: bits >> 4, low: bits & 15, progressive })
    }

    fn read_block(
        &self,
        codes: &mut Codes<'_>,
        tables: &[[Option<Box<Table>>; 4]; 2],
        member: &Member,
        nonzero: &mut u64,
        end_of_band: &mut u32,
    ) -> Result<(), Failure> {
        let no_table = || Failure::Damaged("a scan names a Huffman table that is not there".into());
        let dc = || tables[0][member.dc].as_deref().ok_or_else(no_table);
        let ac = || tables[1][member.ac].as_deref().ok_or_else(no_table);
        match (self.progressive, self.band.0, self.high) {
            (false, ..) => {
                let size = codes.symbol(dc()?)?;
                codes.skip(u32::from(size & 15));
                let table = ac()?;
                let mut at = 1;
                while at < 64 {
                    let symbol = codes.symbol(table)?;
                    let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
                    match (run, size) {
                        (15, 0) => at += 16,
                        (_, 0) => break,
                        _ => {
                            codes.skip(size);
                            at += run + 1;
                        }
                    }
                }
                Ok(())
            }
            (true, 0, 0) => {
                let size = codes.symbol(dc()?)?;
                codes.skip(u32::from(size & 15));
                Ok(())
            }
            (true, 0, _) => {
                codes.skip(1);
                Ok(())
            }
            (true, _, 0) => self.read_first(codes, ac()?, nonzero, end_of_band),
            (true, ..) => self.read_refinement(codes, ac()?, nonzero, end_of_band),
        }
    }

    fn read_first(
        &self,
        codes: &mut Codes<'_>,
        table: &Table,
        nonzero: &mut u64,
        end_of_band: &mut u32,
    ) -> Result<(), Failure> {
        if *end_of_band > 0 {
            *end_of_band -= 1;
            return Ok(());
        }
        let mut at = self.band.0;
        while at <= self.band.1 {
            let symbol = codes.symbol(table)?;
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (run, size) {
                (15, 0) => at += 16,
                (_, 0) => {
                    *end_of_band = (1 << run) - 1 + codes.bits(run);
                    break;
                }
                _ => {
                    at += run as usize;
                    codes.skip(size);
                    if at < 64 {
                        *nonzero |= 1 << at;
                    }
                    at += 1;
                }
            }
        }
        Ok(())
    }

    fn read_refinement(
        &self,
        codes: &mut Codes<'_>,
        table: &Table,
        nonzero: &mut u64,
        end_of_band: &mut u32,
    ) -> Result<(), Failure> {
        let mut at = self.band.0;
        if *end_of_band == 0 {
            while at <= self.band.1 {
                let symbol = codes.symbol(table)?;
                let (mut run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
                if size == 0 && run < 15 {
                    *end_of_band = (1 << run) + codes.bits(run);
                    break;
                }
                // The sign of a coefficient that becomes one now.
                codes.skip(u32::from(size > 0));
                while at <= self.band.1 {
                    if *nonzero >> at & 1 == 1 {
                        codes.skip(1);
                    } else if run == 0 {
                        break;
                    } else {
                        run -= 1;
                    }
                    at += 1;
                }
                if size > 0 && at <= self.band.1 {
                    *nonzero |= 1 << at;
                }
                at += 1;
            }
        }
        if *end_of_band > 0 {
            // What is not zero yet is refined, nothing new comes.
            let band = (u64::MAX << at.min(63)) & (u64::MAX >> (63 - self.band.1));
            if at <= self.band.1 {
                codes.skip((*nonzero & band).count_ones());
            }
            *end_of_band -= 1;
        }
        Ok(())
    }
}
